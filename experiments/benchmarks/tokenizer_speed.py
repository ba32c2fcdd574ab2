"""The `tokenizers` benchmark: how fast each kind encodes, beside the bare library that it stands on."""

import os
from pathlib import Path

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import sentencepiece
import tokenizers
from rich.console import Console
from rich.table import Table

import tales
from tokenizer import Tokenizer, documents_in, load_tokenizer, train_tokenizer

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    """Encode a batch of documents by our tokenizers and by the libraries, in turns, and compare the best times.

    The libraries read the files that ours saved, and are called in their fastest way that gives the ids as
    lists; for char and byte, Python does the work. One thread; time is that of the processor.
    """

    kinds: tuple[str, ...] = ("char", "byte", "bpe", "unigram", "hf_bpe")  # trained on the text
    paths: tuple[str, ...] = ()  # others to measure: folders, or OWNER/NAME on the Hugging Face Hub
    data: str | None = None  # a UTF-8 file; None = tales
    separator: str = "\n\n"  # what stands between the file's documents
    vocab_size: int = 2048  # of bpe, unigram and hf_bpe
    megabytes: float = 4.0  # of text
    repeats: int = 7  # turns, of which the fastest counts
    least: float = 0.8  # of the library's speed: below it, the benchmark fails

    def run(self, console: Console) -> bool:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        texts = self.texts()
        size = sum(len(text.encode()) for text in texts) / 1e6
        sized = {"bpe", "unigram", "hf_bpe"}
        trained = {kind: train_tokenizer(kind, texts, self.vocab_size if kind in sized else None)
                   for kind in self.kinds}
        table = Table("tokenizer", "ids", "bytes per token", "ours, MB/s", "the library's", "ratio")
        ratios = []
        for name, tokenizer in (trained | {path: load_tokenizer(path) for path in self.paths}).items():
            ours, bare = self.seconds(tokenizer, texts)
            ratios.append(bare / ours)
            num_tokens = sum(map(len, tokenizer.encode_batch(texts)))
            table.add_row(name, f"{tokenizer.vocab_size:,}", f"{size * 1e6 / num_tokens:.2f}", f"{size / ours:.1f}",
                          f"{size / bare:.1f}", f"{ratios[-1]:.2f}")
        console.print(table)
        return min(ratios) >= self.least

    def texts(self) -> list[str]:
        """Documents of so many megabytes, or all that there are."""
        stories = (story.text for story in tales.stories(0))
        source = stories if self.data is None else documents_in(self.data, self.separator)
        texts, size = [], 0
        while size < self.megabytes * 1e6 and (text := next(source, None)) is not None:
            texts.append(text)
            size += len(text.encode())
        return texts

    def seconds(self, tokenizer: Tokenizer, texts: list[str]) -> tuple[float, float]:
        """(ours, the library's), the fastest of several turns each. Raises ValueError where the ids differ."""
        ways = (tokenizer.encode_batch, bare(tokenizer))
        if any(len({tuple(way(list(some))[0]) for way in ways}) > 1 for some in ([text] for text in islice(texts, 99))):
            raise ValueError(f"kind={tokenizer.kind} and its library give different ids: no speeds to compare")
        best = [float("inf")] * len(ways)
        for _ in range(self.repeats):
            for n, way in enumerate(ways):
                began = time.process_time()
                way(texts)
                best[n] = min(best[n], time.process_time() - began)
        return best[0], best[1]


def bare(tokenizer: Tokenizer) -> Encode:
    """What one would write with the library alone."""
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
