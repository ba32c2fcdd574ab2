"""Tokenizers, one file per family; `tokenizer.py` trains, loads and shows them."""
