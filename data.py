"""Corpora -> encoded once into memory-mapped files -> batches of ids (b, t)."""

import glob
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

import tales
from tokenizer import Tokenizer, documents_in

FORMAT = 1  # of the files in the cache: another number, and every corpus is encoded anew
VAL_SEED = -1  # tales: the same validation stories whatever the training seed
MAX_VAL_STORIES = 1000
TALES_SOURCES = ("tales.py", "grammar.py", "storybook.py")  # a change in any is another corpus
CHUNK_CHARS = 1_000_000  # text encoded at a time
IGNORED = -100  # the target of a position without one, as in torch's cross_entropy


# ---- corpora ----


class Corpus:
    """Documents in two parts, train and val; `fingerprint` names their content."""

    name: str
    fingerprint: str

    def documents(self, part: str) -> Iterator[tuple[str, float | None]]:
        """(text, exact bits of information in it or None) of each document of a part."""
        raise NotImplementedError

    def train(self) -> Iterator[str]:
        """The training documents."""
        return (text for text, _ in self.documents("train"))

    def val(self) -> Iterator[str]:
        """The validation documents."""
        return (text for text, _ in self.documents("val"))

    @cached_property
    def val_bits(self) -> float | None:
        """Bits of all validation documents, the least any model can need; None = not known."""
        bits = [bits for _, bits in self.documents("val")]
        return None if None in bits else sum(bits)


class TalesCorpus(Corpus):
    """Stories of the built-in grammar: `num_stories` to train on, and up to 1,000 others."""

    name = "tales"

    def __init__(self, *, num_stories: int, val_ratio: float, seed: int):
        if num_stories < 1:
            raise ValueError(f"data.num_stories={num_stories} leaves nothing to train on: use 1 or more")
        if seed == VAL_SEED:
            raise ValueError(f"data.seed={seed} is the validation stories' own: use another")
        num_val = min(max(1, round(num_stories * val_ratio)), MAX_VAL_STORIES)
        self._streams = {"train": (seed, num_stories), "val": (VAL_SEED, num_val)}
        sources = [Path(tales.__file__).with_name(name) for name in TALES_SOURCES]
        self.fingerprint = digest(self._streams, [digest_of_file(path) for path in sources])

    def documents(self, part: str) -> Iterator[tuple[str, float | None]]:
        seed, count = self._streams[part]
        return ((story.text, story.bits) for story in islice(tales.stories(seed), count))


class TextCorpus(Corpus):
    """UTF-8 files: each one a document, or several between separators.

    The last documents are for validation; the last characters where there is one document only.
    """

    def __init__(self, name: str, paths: list[Path], *, separator: str | None, val_ratio: float):
        self.name, self._paths, self._separator = name, paths, separator
        self.fingerprint = digest(separator, val_ratio, [digest_of_file(path) for path in paths])
        num_documents = sum(1 for _ in self._all())
        if num_documents == 0:
            raise ValueError(f"data.name={name!r} has no text: give a file with at least a few words")
        if separator is not None and not any(contains(path, separator) for path in paths):
            raise ValueError(f"data.separator={separator!r} is nowhere in {name!r}: leave it out, or "
                             "give what stands between the documents")
        self._single = num_documents == 1
        total = len(next(self._all())) if self._single else num_documents
        num_val = round(total * val_ratio) if self._single else max(1, round(total * val_ratio))
        if not 0 < num_val < total:
            raise ValueError(f"data.val_ratio={val_ratio} of {name!r} leaves the training or the "
                             "validation part empty: use another ratio, or more text")
        self._num_train = total - num_val

    def _all(self) -> Iterator[str]:
        return (text for path in self._paths for text in documents_in(path, self._separator))

    def documents(self, part: str) -> Iterator[tuple[str, float | None]]:
        bounds = (0, self._num_train) if part == "train" else (self._num_train, None)
        if self._single:
            return iter([(next(self._all())[slice(*bounds)], None)])
        return ((text, None) for text in islice(self._all(), *bounds))


def digest(*values) -> str:
    """SHA-256 (hex) of JSON values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contains(path: Path, text: str) -> bool:
    """Whether the text stands anywhere in a file."""
    if path.stat().st_size == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0


def text_files(name: str) -> list[Path]:
    """The file, the .txt files anywhere in the folder, or the files of the glob, in name order.

    ValueError where there are none.
    """
    path = Path(name)
    found = path.rglob("*.txt") if path.is_dir() else map(Path, glob.glob(name, recursive=True))
    files = [path] if path.is_file() else sorted(file for file in found if file.is_file())
    if not files:
        raise ValueError(f"data.name={name!r} is no text file, no folder or glob with any, and no "
                         "built-in corpus: give a path, or tales")
    return files


def load_corpus(
    name: str, *, separator: str | None = None, val_ratio: float = 0.1,
    num_stories: int = 60_000, seed: int = 0,
) -> Corpus:
    """The corpus of a name: "tales" (num_stories, seed), or text by its path (separator).

    ValueError where the text is missing, empty or not UTF-8, or a part would be empty.
    """
    if not 0 < val_ratio < 1:
        raise ValueError(f"data.val_ratio={val_ratio} is not between 0 and 1: use e.g. 0.1")
    if separator == "":
        raise ValueError("data.separator='' is empty: leave it out, or give e.g. a blank line")
    if name != "tales":
        return TextCorpus(name, text_files(name), separator=separator, val_ratio=val_ratio)
    if separator is not None:
        raise ValueError(f"data.separator={separator!r} would change nothing for tales: leave it out")
    return TalesCorpus(num_stories=num_stories, val_ratio=val_ratio, seed=seed)


# ---- encoded once ----


class TokenFile:
    """One part, encoded: every document as bos, its ids, eos, one after the other.

    `tokens` (num_tokens,) and `document_starts` (num_documents,) are memory-mapped. `num_bytes` of
    UTF-8 text, without bos and eos; `bits` of information in it, or None where not known.
    ValueError where the files are missing or cut short.
    """

    def __init__(self, folder: Path, part: str):
        try:
            meta = json.loads((folder / f"{part}.json").read_text())
            self.num_tokens, self.num_bytes = meta["num_tokens"], meta["num_bytes"]
            self.num_documents, self.bits = meta["num_documents"], meta["bits"]
            self.pad_id = meta["pad_id"]
            self.tokens = np.memmap(folder / f"{part}.bin", meta["dtype"], "r")
            self.document_starts = np.memmap(folder / f"{part}.starts", np.int64, "r")
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"cache {str(folder)!r} is broken ({error}): delete it") from error
        sizes = (len(self.tokens), len(self.document_starts))
        if sizes != (self.num_tokens, self.num_documents):
            raise ValueError(f"cache {str(folder)!r} is broken (cut short): delete it")


def prepare(corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path) -> tuple[TokenFile, TokenFile]:
    """The encoded train and val parts, from the cache or encoded into it now.

    The folder appears under its name only when it is whole, so an interrupted or a second encode
    at the same time does no harm; one that was killed leaves a `.tmp` folder to delete.
    """
    name = digest(FORMAT, corpus.fingerprint, tokenizer.fingerprint)[:32]
    folder = Path(cache_dir) / name
    if not folder.exists():
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".tmp", dir=cache_dir))
        try:
            for part in ("train", "val"):
                write_part(unfinished, part, corpus, tokenizer)
            publish(unfinished, folder)
        finally:
            if unfinished.exists():
                shutil.rmtree(unfinished)
    return TokenFile(folder, "train"), TokenFile(folder, "val")


def publish(unfinished: Path, folder: Path) -> None:
    """Rename into place; whoever was first stays, for both wrote the same."""
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.exists():
            raise


class Piece(NamedTuple):
    """A stretch of a document; `bits`, of the whole document, come with its first piece."""

    text: str
    is_first: bool
    is_last: bool
    bits: float | None


def pieces(documents: Iterable[tuple[str, float | None]]) -> Iterator[Piece]:
    """Cut long documents behind a newline: no token crosses one, so the ids stay the same."""
    for text, bits in documents:
        start = 0
        while start < len(text):
            end = start + CHUNK_CHARS
            if end < len(text):
                end = text.rfind("\n", start, end) + 1 or text.find("\n", end) + 1 or len(text)
            yield Piece(text[start:end], start == 0, end >= len(text), bits)
            start = end


def batched(stream: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Group pieces until a group has CHUNK_CHARS characters."""
    group, num_chars = [], 0
    for piece in stream:
        group.append(piece)
        num_chars += len(piece.text)
        if num_chars >= CHUNK_CHARS:
            yield group
            group, num_chars = [], 0
    if group:
        yield group


def write_part(folder: Path, part: str, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Encode one part into {part}.bin, {part}.starts and {part}.json, in bounded memory."""
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    num_tokens, num_bytes, num_documents, bits = 0, 0, 0, 0.0
    with (open(folder / f"{part}.bin", "wb") as tokens,
          open(folder / f"{part}.starts", "wb") as starts):
        for group in batched(pieces(corpus.documents(part))):
            encoded = tokenizer.encode_batch([piece.text for piece in group])
            for piece, ids in zip(group, encoded, strict=True):
                if piece.is_first:
                    starts.write(np.int64(num_tokens).tobytes())
                    num_documents += 1
                    bits = None if piece.bits is None else bits + piece.bits
                ids = [tokenizer.bos_id] * piece.is_first + ids + [tokenizer.eos_id] * piece.is_last
                tokens.write(np.array(ids, dtype).tobytes())
                num_tokens += len(ids)
                num_bytes += len(piece.text.encode())
        sync(tokens)
        sync(starts)
    meta = {"num_tokens": num_tokens, "num_bytes": num_bytes, "num_documents": num_documents,
            "bits": bits, "pad_id": tokenizer.pad_id, "dtype": np.dtype(dtype).name}
    with open(folder / f"{part}.json", "w") as file:
        file.write(json.dumps(meta))
        sync(file)


def sync(file: IO) -> None:
    """Have the written bytes on the disk before the folder gets its name."""
    file.flush()
    os.fsync(file.fileno())


# ---- batches ----


def row_starts(
    document_starts: np.ndarray, num_tokens: int, *, seq_len: int, reach: int
) -> np.ndarray:
    """First positions of rows, so that a row begins with a document wherever it can.

    The next row begins at the last document that starts within `reach` tokens, and inside the
    document, `seq_len` tokens on, where there is none: that document is longer than a row.
    Shape: (num_documents,) -> (rows,), int64.
    """
    bounds = np.append(document_starts, num_tokens)
    further_rows = np.maximum(0, -(-(np.diff(bounds) - reach) // seq_len))  # begin inside
    ends = bounds[:-1] + further_rows * seq_len + reach
    following = (np.searchsorted(bounds, ends, side="right") - 1).tolist()
    chain, document = [], 0
    while document < len(following):
        chain.append(document)
        document = following[document]
    counts = further_rows[chain] + 1
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(bounds[chain], counts) + within * seq_len


class Batches:
    """Training batches: `batches[step]` is (x, y), both int64 (b, t); y is x one token later.

    A pure function of the seed and the step, so the number of batches taken is the whole position
    to save, and going on from it is exact. A row begins with a document, and the next row with the
    one that was cut, so a document is seen from its start; one longer than a row goes on over
    several. Each epoch takes all rows in a fresh order; a text that is one document also cut at a
    fresh offset. The stream is a ring: the first document follows the last.
    ValueError where the part is shorter than a row.
    """

    def __init__(
        self, token_file: TokenFile, *, batch_size: int, seq_len: int, seed: int = 0,
        shuffle: bool = True, rank: int = 0, world_size: int = 1,
    ):
        num_tokens = token_file.num_tokens
        if num_tokens <= seq_len:
            raise ValueError(f"model.max_seq_len={seq_len} is longer than the text ({num_tokens} tokens): "
                             f"use {num_tokens - 1} or less, or more text")
        if seed < 0:
            raise ValueError(f"train.seed={seed} is negative: use 0 or more")
        self.token_file, self.batch_size, self.seq_len = token_file, batch_size, seq_len
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        starts = token_file.document_starts
        self._starts = row_starts(starts, num_tokens, seq_len=seq_len, reach=seq_len + 1)
        self._single = len(starts) == 1
        self._cached = (-1, self._starts)
        self.rows_per_epoch = len(self._starts)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if step < 0:
            raise IndexError(f"step={step} is negative: the first batch is 0")
        first = (step * self.world_size + self.rank) * self.batch_size
        rows = range(first, first + self.batch_size)
        starts = np.array([self._epoch(row // self.rows_per_epoch)[row % self.rows_per_epoch]
                           for row in rows])
        positions = (starts[:, None] + np.arange(self.seq_len + 1)) % self.token_file.num_tokens
        tokens = torch.from_numpy(self.token_file.tokens[positions].astype(np.int64))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _epoch(self, epoch: int) -> np.ndarray:
        """Row starts of an epoch, in its order."""
        if self.shuffle and self._cached[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            offset = random.integers(self.seq_len) if self._single else 0
            self._cached = (epoch, random.permutation(self._starts) + offset)
        return self._cached[1]


def eval_batches(
    token_file: TokenFile, batch_size: int, seq_len: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, y) int64 (b, t) with every token of the part once as a target, but for the very first.

    Documents stay whole where they fit into a row. Elsewhere x is pad and y is -100, so that all
    batches have one shape.
    """
    last = token_file.num_tokens - 1  # a target only
    starts = row_starts(token_file.document_starts, last, seq_len=seq_len, reach=seq_len)
    stops = np.append(starts[1:], last)
    for first in range(0, len(starts), batch_size):
        rows = slice(first, first + batch_size)
        positions = starts[rows, None] + np.arange(seq_len)
        row, column = np.nonzero(positions < stops[rows, None])
        x = np.full((batch_size, seq_len), token_file.pad_id, np.int64)
        y = np.full((batch_size, seq_len), IGNORED, np.int64)
        x[row, column] = token_file.tokens[positions[row, column]]
        y[row, column] = token_file.tokens[positions[row, column] + 1]
        yield torch.from_numpy(x), torch.from_numpy(y)
