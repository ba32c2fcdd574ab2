"""Encode a corpus once, into memory-mapped token files in the cache, named by corpus and tokenizer."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from configuration.command_line import printable
from corpora.encoder import Encoded, dtype_of, encode
from corpora.files import digest, writing
from corpora.kinds import Corpus
from corpora.locks import locked
from corpora.pairs import PairTargets, without_longer
from corpora.rows import reasons
from run_store.atomic_files import sha256, write_text
from run_store.unfinished import abandoned, private_folder, publish, remove
from tokenizer import Tokenizer

FORMAT = 4  # of the cached files: if it changes, every corpus is encoded again
PATIENCE = 3.0  # seconds before the progress bar appears


class TokenFile:
    """One encoded part: bos, ids and eos of every document, concatenated.

    `tokens` (num_tokens,) and `document_starts` (num_documents,) are memory-mapped. `num_bytes` is the size of the
    text in UTF-8, `bits` its information content, None = not known. `left_out` counts the rows of the text's table that
    had no text, by the reason. Of pairs, `target_starts` (num_documents,) are the places of the first target tokens,
    sources are no targets and have no bytes; of other texts it is None.
    Raises ValueError if a file is missing, or not as it was written.
    """

    def __init__(self, folder: Path, part: str):
        try:
            meta = json.loads((folder / f"{part}.json").read_text())
            for end, written in meta["sha256"].items():
                if sha256(folder / f"{part}.{end}") != written:
                    raise ValueError(f"{part}.{end} is not as it was written")
            self.num_tokens, self.num_bytes = meta["num_tokens"], meta["num_bytes"]
            self.num_documents, self.bits = meta["num_documents"], meta["bits"]
            self.pad_id, self.left_out = meta["pad_id"], meta.get("left_out", {})
            self.tokens = np.memmap(folder / f"{part}.bin", meta["dtype"], "r")
            self.document_starts = np.memmap(folder / f"{part}.starts", np.int64, "r")
            is_pairs = "target_starts" in meta["sha256"]
            self.target_starts = np.memmap(folder / f"{part}.target_starts", np.int64, "r") if is_pairs else None
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"cache {str(folder)!r} is broken ({error}): delete it") from error
        # what is to be predicted: all of it, or the targets
        self.targets = PairTargets(self.tokens, self.document_starts, self.target_starts) if is_pairs else self.tokens

    @property
    def num_source_tokens(self) -> int:
        """The tokens of sources and what stands around them; 0 if the text is no pairs."""
        return 0 if self.target_starts is None else int((self.target_starts - self.document_starts).sum())


class JoinedTokens:
    """The tokens of several files as one array, indexed by an integer, a slice or an array of integers."""

    def __init__(self, arrays: list[np.ndarray]):
        self._arrays, self._ends = arrays, np.cumsum([len(array) for array in arrays])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, where: int | slice | np.ndarray) -> np.ndarray:
        where = np.arange(len(self))[where] if isinstance(where, slice) else np.asarray(where)
        if where.size and not -len(self) <= where.min() <= where.max() < len(self):
            raise IndexError(f"there are {len(self)} tokens, none at {where.max()} or at {where.min()}")
        where = where % len(self)
        taken, owners = np.empty(where.shape, self.dtype), np.searchsorted(self._ends, where, side="right")
        for number, array in enumerate(self._arrays):
            mine = owners == number
            taken[mine] = array[where[mine] - (self._ends[number] - len(array))]
        return taken


class JoinedTokenFile:
    """Several parts concatenated, with the interface of a TokenFile."""

    def __init__(self, files: list[TokenFile]):
        self.tokens, self.targets = (JoinedTokens([getattr(file, name) for file in files])
                                     for name in ("tokens", "targets"))
        self.num_tokens, self.pad_id = len(self.tokens), files[0].pad_id
        offsets = np.cumsum([0] + [file.num_tokens for file in files[:-1]])
        self.document_starts = np.concatenate(
            [file.document_starts + offset for file, offset in zip(files, offsets, strict=True)])
        self.target_starts = None if files[0].target_starts is None else np.concatenate(
            [file.target_starts + offset for file, offset in zip(files, offsets, strict=True)])
        self.num_source_tokens = sum(file.num_source_tokens for file in files)
        self.num_documents = len(self.document_starts)
        self.num_bytes = sum(file.num_bytes for file in files)
        bits = [file.bits for file in files]
        self.bits = None if None in bits else sum(bits)


def prepare(
    corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path, *, workers: int | None = None,
    console: Console | None = None, max_pair_len: int | None = None,
) -> tuple[list[tuple[TokenFile, float]], TokenFile | JoinedTokenFile]:
    """([(train part, weight) of each source], validation part), from the cache or encoded into it now.

    The weights add up to 1. Pairs of more than `max_pair_len` tokens are left out. Raises ValueError if a part is
    empty.
    """
    how = tokenizer, cache_dir, workers, console or Console(stderr=True), max_pair_len
    files = [encoded_part(source, "train", *how) for source in corpus.sources]
    weights = corpus.weights or [file.num_tokens for file in files]
    held_out = [encoded_part(source, part, *how) for source, part in corpus.held_out]
    return ([(file, weight / sum(weights)) for file, weight in zip(files, weights, strict=True)],
            held_out[0] if len(held_out) == 1 else JoinedTokenFile(held_out))


def encoded_part(
    corpus: Corpus, part: str, tokenizer: Tokenizer, cache_dir: Path, workers: int | None, console: Console,
    max_pair_len: int | None = None,
) -> TokenFile:
    """One part of a corpus, encoded."""
    folder = encode_once(corpus, tokenizer, Path(cache_dir), workers, console, max_pair_len)
    if (folder / f"{part}.json").exists() and (folder / f"{part}.starts").stat().st_size == 0:
        left_out = json.loads((folder / f"{part}.json").read_text())["left_out"]
        raise ValueError(f"data.name={corpus.name!r} leaves the {part} part empty{reasons(left_out)}: use another "
                         "data.val_ratio, or more text")
    return TokenFile(folder, part)


def encode_once(
    corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path, workers: int | None, console: Console,
    max_pair_len: int | None = None,
) -> Path:
    """The folder of an encoded corpus, encoded now if it is not in the cache.

    The folder gets its name when it is complete, so an interrupted encoding is never used. If another process encodes
    the same corpus, wait for it. What killed encodings have left is removed.
    """
    of_pairs = ["pairs", max_pair_len] if corpus.is_pairs else []
    name = digest(FORMAT, corpus.fingerprint, tokenizer.fingerprint, *of_pairs)[:32]
    folder = cache_dir / name
    if folder.exists():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(cache_dir / f"{name}.lock", console):
        if not folder.exists():
            for left in abandoned(cache_dir):
                remove(left)
            with private_folder(folder) as unfinished:
                write_parts(unfinished, corpus, tokenizer, workers, console, max_pair_len)
                publish(unfinished, folder)
    return folder


class PartWriter:
    """Writes {part}.bin, {part}.starts, of pairs {part}.target_starts, and {part}.json into a folder."""

    def __init__(self, folder: Path, part: str, files: Mapping[str, IO[bytes]]):
        self.folder, self.part, self.files = folder, part, files
        self.num_tokens = self.num_bytes = self.num_documents = 0
        self.bits: float | None = 0.0
        self.sums = {end: hashlib.sha256() for end in files}

    def add(self, group: Encoded) -> None:
        """Append the chunks of this part in a group."""
        mine = np.array([chunk.part == self.part for chunk in group.chunks], bool)
        is_first, is_source = (np.array([getattr(chunk, name) for chunk in group.chunks], bool)[mine]
                               for name in ("is_first", "is_source"))
        ids = group.ids if mine.all() else group.ids[np.repeat(mine, group.num_ids)]
        ends = self.num_tokens + np.cumsum(group.num_ids[mine])
        found = {"starts": (ends - group.num_ids[mine])[is_first], "bin": ids, "target_starts": ends[is_source]}
        for end, file in self.files.items():
            data = found[end].tobytes()
            with writing(Path(file.name)):
                file.write(data)
                file.flush()
            self.sums[end].update(data)
        self.num_tokens += len(ids)
        self.num_bytes += int(group.num_bytes[mine][~is_source].sum())
        self.num_documents += int(is_first.sum())
        for chunk in group.chunks:
            if chunk.is_first and chunk.part == self.part:
                self.bits = None if chunk.bits is None or self.bits is None else self.bits + chunk.bits

    def finish(self, tokenizer: Tokenizer, left_out: Mapping[str, int]) -> None:
        """Write the description, and flush all to the disk before the folder gets its name."""
        for file in self.files.values():
            with writing(Path(file.name)):
                sync(file)
        meta = {"num_tokens": self.num_tokens, "num_bytes": self.num_bytes, "num_documents": self.num_documents,
                "bits": self.bits, "pad_id": tokenizer.pad_id, "dtype": dtype_of(tokenizer).name,
                "left_out": dict(left_out),
                "sha256": {end: digest.hexdigest() for end, digest in self.sums.items()}}
        with writing(path := self.folder / f"{self.part}.json"):
            write_text(path, json.dumps(meta))


def write_parts(
    folder: Path, corpus: Corpus, tokenizer: Tokenizer, workers: int | None, console: Console,
    max_pair_len: int | None = None,
) -> None:
    """Encode both parts in one pass over the corpus, in bounded memory."""
    ends, too_long = ["starts", "bin", *["target_starts"] * corpus.is_pairs], {}
    with contextlib.ExitStack() as stack:
        writers = [PartWriter(folder, part, {end: stack.enter_context(new_file(folder / f"{part}.{end}"))
                                             for end in ends}) for part in ("train", "val")]
        show = stack.enter_context(progress_bar(console, corpus))
        groups = stack.enter_context(contextlib.closing(encode(corpus.chunks(), tokenizer, workers)))
        for group in without_longer(groups, max_pair_len, too_long) if corpus.is_pairs and max_pair_len else groups:
            for writer in writers:
                writer.add(group)
            show(group)
        for writer in writers:
            writer.finish(tokenizer, {**corpus.left_out, **too_long})


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, and to flush: what is not flushed when it is closed is lost without an error."""
    with writing(path):
        file = open(path, "wb")  # noqa: SIM115
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # of a disk that is full, which has been said
            file.close()


@contextlib.contextmanager
def progress_bar(console: Console, corpus: Corpus) -> Iterator:
    """A function that shows progress after each group, on a terminal and after PATIENCE seconds."""
    columns = (TextColumn("encoding {task.description}", markup=False), BarColumn(None),
               TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(printable(corpus.name), total=corpus.total, said="", start=True)
    began, num_tokens = time.perf_counter(), 0

    def show(group: Encoded) -> None:
        nonlocal num_tokens
        num_tokens += len(group.ids)
        seconds = time.perf_counter() - began
        done = sum(len(chunk.text) if corpus.counts_characters else chunk.is_last for chunk in group.chunks)
        bar.update(task, advance=done, said=f"{num_tokens:,} tokens, {num_tokens / seconds:,.0f}/s")
        if seconds > PATIENCE:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()


def sync(file: IO) -> None:
    """Flush written bytes to the disk."""
    file.flush()
    os.fsync(file.fileno())
