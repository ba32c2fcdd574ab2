"""How text becomes ids, one file per family; `tokenizer.py` trains, loads and shows them."""
