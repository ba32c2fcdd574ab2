"""The benchmark tokenizer: how fast each kind encodes, compared with the bare library beneath it."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import sentencepiece
import tokenizers
from rich.console import Console
from rich.table import Table

import tales
from experiments.benchmarks.benchmark_options import Tokenizers
from experiments.benchmarks.measuring import best_seconds
from tokenizer import Tokenizer, documents_in, load_tokenizer, train_tokenizer

SIZED = ("bpe", "unigram", "hf_bpe")


def run(options: Tokenizers, console: Console) -> bool:
    """Print a row for each tokenizer; whether all are as fast as claimed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = take_texts(options)
    size = sum(len(text.encode()) for text in texts) / 1e6
    found = {kind: train_tokenizer(kind, texts, options.vocab_size if kind in SIZED else None)
             for kind in options.kinds}
    found |= {path: load_tokenizer(path) for path in options.paths}
    table = Table("tokenizer", "ids", "bytes per token", "ours, MB/s", "the library's", "ratio")
    ratios = []
    for name, tokenizer in found.items():
        ours, library = compare(tokenizer, texts, options.repeats)
        ratios.append(library / ours)
        num_tokens = sum(map(len, tokenizer.encode_batch(texts)))
        table.add_row(name, f"{tokenizer.vocab_size:,}", f"{size * 1e6 / num_tokens:.2f}", f"{size / ours:.1f}",
                      f"{size / library:.1f}", f"{ratios[-1]:.2f}")
    console.print(table)
    return min(ratios) >= options.least


def take_texts(options: Tokenizers) -> list[str]:
    """Documents of this size, or all if there are fewer."""
    stories = (story.text for story in tales.stories(0))
    source = stories if options.data is None else documents_in(options.data, options.separator)
    texts, size = [], 0
    while size < options.megabytes * 1e6 and (text := next(source, None)) is not None:
        texts.append(text)
        size += len(text.encode())
    return texts


def compare(tokenizer: Tokenizer, texts: list[str], repeats: int) -> tuple[float, float]:
    """Seconds (ours, the library's), the fastest of several turns each. Raises ValueError if the ids differ."""
    ways = (tokenizer.encode_batch, bare_library(tokenizer))
    if any(len({tuple(way([text])[0]) for way in ways}) > 1 for text in islice(texts, 99)):
        raise ValueError(f"kind={tokenizer.kind} and its library give different ids: no speeds to compare")
    ours, library = best_seconds({str(n): partial(way, texts) for n, way in enumerate(ways)}, repeats).values()
    return ours, library


def bare_library(tokenizer: Tokenizer) -> Callable[[list[str]], list[list[int]]]:
    """The same encoding with the library alone."""
    if tokenizer.kind == "byte":
        return lambda texts: [[byte + 3 for byte in text.encode()] for text in texts]
    if tokenizer.kind == "char":
        ids = {character: i for i, character in enumerate(tokenizer.alphabet, start=3)}
        return lambda texts: [[ids[character] for character in text] for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        if Path(folder, "tokenizer.model").exists():
            library = sentencepiece.SentencePieceProcessor(model_file=str(Path(folder, "tokenizer.model")))
            return lambda texts: library.encode(texts, num_threads=1)
        library = tokenizers.Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        return lambda texts: [one.ids for one in library.encode_batch_fast(texts, add_special_tokens=False)]
