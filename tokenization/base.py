"""The base class of tokenizers, and how long text is cut for them."""

import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from rich.text import Text

from tokenization import display
from tokenization.cuts import BETWEEN_WORDS, split_long

Item = TypeVar("Item")
PARALLELISM = "TOKENIZERS_PARALLELISM"  # variable of Hugging Face's library; we use it for SentencePiece too
if multiprocessing.parent_process() is not None:  # in a child process, which shares the cores with others
    os.environ.setdefault(PARALLELISM, "false")
META = "meta.json"  # in a saved folder: kind, sizes, fingerprint
MAX_CHARS = 1_000_000  # per call of a library, whose working memory is many times the text


class Serializable:
    """A tokenizer as JSON values and files: its fingerprint, saved form and pickle."""

    kind: str
    file_names: tuple[str, ...] = ()  # written by `save` besides meta.json
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        """The tokenizer with this `description()` and these `files()`."""
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        """The content of each of `file_names`."""
        return {}

    def details(self) -> dict:
        """The JSON values that define this tokenizer besides its kind and special ids."""
        return {}

    def description(self) -> dict:
        """The content of meta.json, without the fingerprint."""
        ids = {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        return {"kind": self.kind, "vocab_size": self.vocab_size, **ids, **self.details()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that defines the tokenizer: the same fingerprint, the same ids."""
        return hashlib.sha256(json.dumps(self.description(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write meta.json and `files()` into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.description() | {"fingerprint": self.fingerprint}, indent=1)
        (Path(folder) / META).write_text(content + "\n", encoding="utf-8")
        for name, data in self.files().items():
            (Path(folder) / name).write_bytes(data)

    def __reduce__(self):
        return type(self).rebuild, (self.description(), self.files())


class Tokenizer(Serializable):
    """A lossless map from text to ids, each of which stands for fixed bytes.

    `token_bytes[id]` are the UTF-8 bytes of an id, empty for specials (pad, bos, eos). So the `byte_lengths` of a
    text's ids add up to the bytes of the text, exactly. No characters of a text, whatever they spell, become a
    special. Can be pickled, as the files that `save` writes.
    """

    cuts: re.Pattern[str] | None = BETWEEN_WORDS  # where a long text may be cut and has the same ids; None = nowhere

    def __init__(self, token_bytes: list[bytes], *, pad_id: int = 0, bos_id: int = 1, eos_id: int = 2):
        self.token_bytes = token_bytes
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id
        self.vocab_size = len(token_bytes)
        self.byte_lengths = np.array([len(token) for token in token_bytes], dtype=np.int32)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """Train on the texts. Raises ValueError if `vocab_size` does not suit them."""
        raise NotImplementedError

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, of any length, without bos and eos. Raises ValueError, naming a character without an id."""
        texts = [require_unicode(text) for text in texts]
        if self.cuts is None or sum(map(len, texts)) <= MAX_CHARS:
            return self.encode_small_batch(texts)
        batch: list[list[int]] = [[] for _ in texts]
        chunks = ((n, chunk) for n, text in enumerate(texts) for chunk in split_long(text, MAX_CHARS, self.cuts))
        for group in group_by_chars(chunks, lambda numbered: len(numbered[1]), MAX_CHARS):
            encoded = self.encode_small_batch([chunk for _, chunk in group])
            for (n, _), ids in zip(group, encoded, strict=True):
                batch[n] = batch[n] + ids if batch[n] else ids
        return batch

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        """The same for texts of at most about MAX_CHARS characters in all."""
        raise NotImplementedError

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text, with bos and eos if asked."""
        return [self.bos_id] * bos + self.encode_batch([text])[0] + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, without specials; bytes that are not UTF-8 become U+FFFD."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id={i} is not in the vocabulary: use 0 to {self.vocab_size - 1}")
        return b"".join([self.token_bytes[i] for i in ids]).decode(errors="replace")

    def decode_batch(self, batch: Iterable[Iterable[int]]) -> list[str]:
        """Text of each row of ids."""
        return [self.decode(ids) for ids in batch]

    def show(self, text: str, *, ids: bool = False) -> Text:
        """The text with one color per token, for `rich.print` (space ·, newline ⏎)."""
        return display.colored_text(text, self._tokens(text), ids=ids)

    def show_html(self, text: str, *, ids: bool = False) -> str:
        """The same as static HTML, for notebooks; a token's tooltip is its id."""
        return display.html(text, self._tokens(text), ids=ids)

    def _tokens(self, text: str) -> list[tuple[int, bytes]]:
        return [(i, self.token_bytes[i]) for i in self.encode(text)]


def require_unicode(text: str) -> str:
    """The text. Raises ValueError if it has a lone surrogate, for which UTF-8 has no bytes."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text has {text[error.start]!r} as its character {error.start:,}, which is half of a "
                         "character and not UTF-8: take it out, or replace it") from None
    return text


def group_by_chars(items: Iterable[Item], num_chars: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Items in groups of at least `limit` characters, except the last."""
    group, total = [], 0
    for item in items:
        group.append(item)
        total += num_chars(item)
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def sample_evenly(texts: Iterable[str], max_bytes: int, chunk_chars: int = 10_000) -> list[str]:
    """At most `max_bytes` (UTF-8) of the texts, evenly spaced: every n-th chunk, with the least n = 1, 2, 4, ...

    One pass, in memory of that size; deterministic.
    """
    kept, every, num_bytes = [], 1, 0
    for number, chunk in enumerate(chunk for text in texts for chunk in split_long(text, chunk_chars)):
        if number % every:
            continue
        kept.append(chunk)
        num_bytes += len(chunk.encode())
        while num_bytes > max_bytes and len(kept) > 1:
            kept, every = kept[::2], 2 * every
            num_bytes = sum(len(chunk.encode()) for chunk in kept)
    return kept


def consumed(items: list[Item]) -> Iterator[Item]:
    """The items of a list in order; each is released when the next one is asked for."""
    items.reverse()
    while items:
        yield items.pop()


def one_thread() -> bool:
    """Whether TOKENIZERS_PARALLELISM=false asks for one thread."""
    return os.environ.get(PARALLELISM, "").lower() in ("false", "0", "no", "off")


def check_fixed_size(kind: str, vocab_size: int | None, actual: int) -> None:
    """Raise ValueError if the user asks for a size that this kind cannot have."""
    if vocab_size not in (None, actual):
        raise ValueError(f"vocab_size={vocab_size} cannot be chosen for kind={kind}, it has "
                         f"{actual} ids here: leave vocab_size out, or use kind=bpe")


def require_size(kind: str, vocab_size: int | None) -> int:
    """The size. Raises ValueError if it is None."""
    if vocab_size is None:
        raise ValueError(f"vocab_size is missing: kind={kind} needs a number, such as 1024")
    return vocab_size


def too_large_error(vocab_size: int, most: int) -> ValueError:
    """The error for a vocabulary that is larger than the text supports."""
    return ValueError(f"vocab_size={vocab_size} is more than this text supports: "
                      f"use {most} or less, or give more text")
