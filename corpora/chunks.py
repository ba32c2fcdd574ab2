"""Documents as a stream of chunks: cut, selected and assigned to train or val in bounded memory."""

import re
from collections.abc import Callable, Iterable, Iterator
from math import floor
from typing import NamedTuple

import numpy as np

from tokenization.cuts import last_cut

CHUNK_CHARS = 1 << 18  # a document of twice as many comes in several chunks
MAX_BLANK = 1 << 24  # characters of white space at the start of a document, which is not blank if there are more
NOT_BLANK = re.compile(r"\S")
SINGLE_NEWLINE, SINGLE_SPACE = re.compile(r"\S\n(?=\S)"), re.compile(r"\S(?= \S)")


class Chunk(NamedTuple):
    """A stretch of a document. `bits` are those of the whole document, on its first chunk.

    A pair is a document of two chunks, its source and its target.
    """

    text: str
    is_first: bool = True
    is_last: bool = True
    bits: float | None = None
    part: str = "train"
    is_source: bool = False  # of a pair: an end-of-text token follows, and nothing of it is predicted

    @property
    def ends(self) -> bool:
        """Whether an end-of-text token follows."""
        return self.is_last or self.is_source


def split_documents(blocks: Iterable[str], separator: str | None) -> Iterator[Chunk]:
    """Split text into documents at separators, blank ones included, in chunks."""
    rest, is_first = "", True
    for block in blocks:
        *ended, rest = (rest + block).split(separator) if separator else [rest + block]
        for text in ended:
            yield from cut_document(text, is_first=is_first)
            is_first = True
        # the rest may begin a separator; white space at the start of a document is not cut off alone
        while (len(rest) >= 2 * CHUNK_CHARS + len(separator or "")
               and not (is_first and len(rest) < MAX_BLANK and rest.isspace())):
            end = cut_position(rest)
            yield Chunk(rest[:end], is_first, False)
            rest, is_first = rest[end:], False
    yield from cut_document(rest, is_first=is_first)


def cut_document(text: str, *, is_first: bool = True, bits: float | None = None) -> Iterator[Chunk]:
    """Cut (the rest of) a document into chunks."""
    start = 0
    while len(text) - start >= 2 * CHUNK_CHARS and (start or NOT_BLANK.search(text)):
        end = start + cut_position(text[start:start + CHUNK_CHARS + 1])
        yield Chunk(text[start:end], is_first, False, bits)
        start, is_first = end, False
    yield Chunk(text[start:], is_first, True, bits)


def pair(source: str, target: str) -> Iterator[Chunk]:
    """The chunks of a pair, whatever its length: `[bos] source [eos] target [eos]`."""
    yield Chunk(source, is_last=False, is_source=True)
    yield Chunk(target, is_first=False)


def whole_pairs(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks, those of a pair together."""
    held: list[Chunk] = []
    for chunk in chunks:
        held.append(chunk)
        if not chunk.is_source:
            yield held
            held = []


def cut_position(text: str) -> int:
    """The last position in the second half of a chunk that is after a single newline or before a single space.

    The end of the chunk if there is neither. `recut` moves it to a place where no tokenizer's ids change.
    """
    start = max(0, CHUNK_CHARS // 2 - 1)
    ends = (last_cut(text[start:CHUNK_CHARS + 1], places) for places in (SINGLE_NEWLINE, SINGLE_SPACE))
    return next((start + end for end in ends if end), CHUNK_CHARS)


def recut(chunks: Iterable[Chunk], find_cut: Callable[[str], int], max_chars: int) -> Iterator[Chunk]:
    """Move the ends of chunks inside documents to where `find_cut` finds the last place to cut a text; 0 = none.

    Text behind that place goes to the next chunk. If there is no place in `max_chars` characters they are cut at their
    end all the same, since memory has to end somewhere.
    """
    held: Chunk | None = None
    for chunk in chunks:
        if held is not None:
            chunk = held._replace(text=held.text + chunk.text, is_last=chunk.is_last)
        end = len(chunk.text) if chunk.ends else find_cut(chunk.text)
        if end == 0 and len(chunk.text) >= max_chars:
            end = len(chunk.text)
        if end == 0 and not chunk.ends:
            held = chunk
            continue
        yield chunk._replace(text=chunk.text[:end])
        rest = chunk.text[end:]
        held = chunk._replace(text=rest, is_first=False) if rest else None


def drop_blank(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Leave out documents of white space only."""
    return (chunk for chunk in chunks if not (chunk.is_first and chunk.is_last) or chunk.text.strip())


def sample_documents(chunks: Iterable[Chunk], ratio: float, seed: int) -> Iterator[Chunk]:
    """Keep a share of the documents, drawn by the seed and the documents' numbers alone."""
    number, kept = -1, np.empty(0, dtype=bool)
    for chunk in chunks:
        number += chunk.is_first
        place = number % 4096
        if chunk.is_first and place == 0:
            kept = np.random.default_rng([seed, number // 4096]).random(4096) < ratio
        if kept[place]:
            yield chunk


def first_documents(chunks: Iterable[Chunk], max_documents: int) -> Iterator[Chunk]:
    """Keep the first `max_documents` documents."""
    number = 0
    for chunk in chunks:
        yield chunk
        number += chunk.is_last
        if number == max_documents:
            return


def split_by_documents(chunks: Iterable[Chunk], num_train: int) -> Iterator[Chunk]:
    """Assign the first `num_train` documents to training, the others to validation."""
    done = 0
    for chunk in chunks:
        yield chunk if done < num_train else chunk._replace(part="val")
        done += chunk.is_last


def split_by_characters(chunks: Iterable[Chunk], num_train: int) -> Iterator[Chunk]:
    """Assign the first `num_train` characters of a single document to training; the rest is a document of its own."""
    for chunk in chunks:
        train, val = chunk.text[:max(0, num_train)], chunk.text[max(0, num_train):]
        if train:
            yield chunk._replace(text=train, is_last=len(train) == num_train)
        if val:
            yield chunk._replace(text=val, is_first=num_train >= 0 and len(train) == num_train, part="val")
        num_train -= len(chunk.text)


def split_evenly(chunks: Iterable[Chunk], val_ratio: float) -> Iterator[Chunk]:
    """Assign a share of the documents to validation, evenly spaced."""
    number, part = -1, "train"
    for chunk in chunks:
        if chunk.is_first:
            number += 1
            part = "val" if floor((number + 1) * val_ratio + 0.5) > floor(number * val_ratio + 0.5) else "train"
        yield chunk._replace(part=part)
