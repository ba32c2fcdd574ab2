"""Documents as a stream of pieces: cut, chosen, and given to the parts, with a few of them in memory."""

from collections.abc import Iterable, Iterator
from math import floor
from typing import NamedTuple

import numpy as np

PIECE_CHARS = 1 << 18  # a longer document comes in several pieces


class Piece(NamedTuple):
    """A stretch of a document; `bits`, of the whole document, come with its first piece."""

    text: str
    is_first: bool = True
    is_last: bool = True
    bits: float | None = None
    part: str = "train"


def split(blocks: Iterable[str], separator: str | None) -> Iterator[Piece]:
    """The documents between separators, blank ones too, in pieces cut where no token crosses."""
    rest, is_first = "", True
    for block in blocks:
        *ended, rest = (rest + block).split(separator) if separator else [rest + block]
        for text in ended:
            yield from cut(text, is_first=is_first)
            is_first = True
        # what is left begins no separator, and a blank start waits for what follows
        while len(rest) >= 2 * PIECE_CHARS + len(separator or "") and not rest.isspace():
            end = place_to_cut(rest)
            yield Piece(rest[:end], is_first, False)
            rest, is_first = rest[end:], False
    yield from cut(rest, is_first=is_first)


def cut(text: str, *, is_first: bool = True, bits: float | None = None) -> Iterator[Piece]:
    """What is left of a document, in pieces."""
    while len(text) >= 2 * PIECE_CHARS and not text.isspace():
        end = place_to_cut(text)
        yield Piece(text[:end], is_first, False, bits)
        text, is_first = text[end:], False
    yield Piece(text, is_first, True, bits)


def place_to_cut(text: str) -> int:
    """The last place in the second half of a piece where cutting changes no tokenizer's ids.

    Behind a newline or before a space that stands alone; anywhere where there is neither.
    """
    for mark, place in (("\n", 1), (" ", 0)):
        found = text.rfind(mark, PIECE_CHARS // 2, PIECE_CHARS)
        while found > 0:
            if not (text[found - 1].isspace() or text[found + 1].isspace()):
                return found + place
            found = text.rfind(mark, PIECE_CHARS // 2, found)
    return PIECE_CHARS


def without_blank(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Leave out documents that are all white space."""
    return (piece for piece in pieces if not (piece.is_first and piece.is_last) or piece.text.strip())


def sampled(pieces: Iterable[Piece], ratio: float, seed: int) -> Iterator[Piece]:
    """Keep this share of the documents: which ones depends on the seed and their numbers alone."""
    number, kept = -1, np.empty(0, dtype=bool)
    for piece in pieces:
        number += piece.is_first
        place = number % 4096
        if piece.is_first and place == 0:
            kept = np.random.default_rng([seed, number // 4096]).random(4096) < ratio
        if kept[place]:
            yield piece


def limited(pieces: Iterable[Piece], max_documents: int) -> Iterator[Piece]:
    """The pieces of the first documents."""
    number = 0
    for piece in pieces:
        yield piece
        number += piece.is_last
        if number == max_documents:
            return


def by_documents(pieces: Iterable[Piece], num_train: int) -> Iterator[Piece]:
    """The first documents are for training."""
    done = 0
    for piece in pieces:
        yield piece if done < num_train else piece._replace(part="val")
        done += piece.is_last


def by_characters(pieces: Iterable[Piece], num_train: int) -> Iterator[Piece]:
    """The first characters of one document are for training: what follows is a document too."""
    for piece in pieces:
        ours, theirs = piece.text[:max(0, num_train)], piece.text[max(0, num_train):]
        if ours:
            yield piece._replace(text=ours, is_last=len(ours) == num_train)
        if theirs:
            yield piece._replace(text=theirs, is_first=num_train >= 0 and len(ours) == num_train, part="val")
        num_train -= len(piece.text)


def spread(pieces: Iterable[Piece], val_ratio: float) -> Iterator[Piece]:
    """Give every so manieth document to validation."""
    number, part = -1, "train"
    for piece in pieces:
        if piece.is_first:
            number += 1
            part = "val" if floor((number + 1) * val_ratio + 0.5) > floor(number * val_ratio + 0.5) else "train"
        yield piece._replace(part=part)
