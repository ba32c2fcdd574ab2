"""What a task is, and what the tasks share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

IGNORED = -100  # the answer at a place where none is asked for, as in torch's cross_entropy


class Numbers(NamedTuple):
    """The numbers of a task; None = it has no such number."""

    symbols: int | None = None  # names in the vocabulary: keys and values, letters, residues, ...
    items: int | None = None  # the difficulty: pairs, symbols to copy, steps, ...
    noise: float | None = None  # share of noise
    seed: int = 0  # of what is the same in all rows


class Rows(NamedTuple):
    """What a task asks. The symbols have the numbers of the task's words. Shape: both (n, t), int64."""

    inputs: np.ndarray
    answers: np.ndarray  # the symbol to predict once this input is read; -100 = none


@dataclass(frozen=True)
class Task:
    """A task, with its own numbers, which flags replace."""

    draw: Callable[[Generator, int, int, Numbers], Rows]  # (random numbers, n, t, numbers); raises ValueError
    words: Callable[[Numbers], list[str]]  # the vocabulary, in the order of the symbols' numbers
    length: int  # symbols of a row (t), if nothing else is wanted
    numbers: Numbers
    items: str | None  # what `items` counts
    source: str  # where it was published


def require(holds: bool, sentence: str) -> None:
    """Raise ValueError with the sentence unless it holds."""
    if not holds:
        raise ValueError(sentence)


def require_length(length: int, least: int, what: str) -> None:
    """Raise ValueError if rows are too short."""
    require(length >= least, f"model.max_seq_len={length + 1} is too short for {what}: use {least + 1} or more")


def named(letter: str, count: int) -> list[str]:
    """k0, k1, ..."""
    return [f"{letter}{number}" for number in range(count)]


def blank_rows(count: int, length: int, blank: int) -> Rows:
    """Rows of blanks without an answer."""
    return Rows(np.full((count, length), blank), np.full((count, length), IGNORED))


def distinct(rng: Generator, count: int, among: int, size: int) -> np.ndarray:
    """`size` different numbers below `among` in each row, in random order. Shape: (count, size)."""
    return rng.permuted(np.tile(np.arange(among), (count, 1)), axis=1)[:, :size]


def seen_before(values: np.ndarray) -> np.ndarray:
    """Whether the same value stands further left in its row. Shape: (n, m) -> (n, m), bool."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    again = np.zeros(values.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return again


def in_a_row(pieces: np.ndarray, is_used: np.ndarray, length: int, fill: int) -> np.ndarray:
    """Join the used values of each row's pieces, and cut or fill the result. Shape: twice (n, m, w) -> (n, length)."""
    rows = np.full((len(pieces), length), fill)
    flat, used = pieces.reshape(len(pieces), -1), is_used.reshape(len(pieces), -1)
    place = used.cumsum(axis=1) - 1
    kept = used & (place < length)
    rows[np.nonzero(kept)[0], place[kept]] = flat[kept]
    return rows
