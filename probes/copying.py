"""Copying: what stands in a row is asked for once more, all of it, what is no blank, or what followed a part of it."""

import numpy as np
from numpy.random import Generator

from probes.task import Numbers, Rows, blank_rows, distinct, named, require, require_length, seen_before

TRIES = 100  # of a string in which an n-gram stands once


def letter_words(n: Numbers) -> list[str]:
    """Letters, a bar, an end and a blank."""
    return [*named("a", n.symbols), "|", ".", "_"]


def selective_copying(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """A few symbols among blanks, a bar, and as many blanks, at which the symbols are asked for in their order.

    A longer row has the same number of symbols and more blanks.
    """
    require_length(length, 2 * n.items + 1, f"data.probe.items={n.items} symbols and their copies")
    bar = length - n.items - 1
    rows = blank_rows(count, length, n.symbols + 2)
    places = np.sort(distinct(rng, count, bar, n.items), axis=1)
    symbols = rng.integers(n.symbols, size=(count, n.items))
    np.put_along_axis(rows.inputs, places, symbols, axis=1)
    rows.inputs[:, bar], rows.answers[:, bar + 1:] = n.symbols, symbols
    return rows


def copying(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """A string, a bar and the string once more; from the bar on each next symbol is asked for, and the end.

    Strings have between half and all of the length for which a row has room, so those of a row of twice the length are
    longer. What is left is blank.
    """
    longest = (length - 1) // 2
    require_length(length, 3, "a symbol and its copy")
    rows = blank_rows(count, length, n.symbols + 2)
    text, place = rng.integers(n.symbols, size=(count, longest)), np.arange(length)
    size = rng.integers(-(-longest // 2), longest + 1, size=(count, 1))

    def shifted(by: np.ndarray | int) -> np.ndarray:
        """The string, so many places to the right; what lies outside it is not used."""
        return np.take_along_axis(text, np.clip(place - by, 0, longest - 1) + np.zeros_like(size), axis=1)

    for where, what in ((place < size, shifted(0)), (place == size, n.symbols),
                        ((place > size) & (place <= 2 * size), shifted(size + 1))):
        np.copyto(rows.inputs, what, where=where)
    for where, what in (((place >= size) & (place < 2 * size), shifted(size)), (place == 2 * size, n.symbols + 1)):
        np.copyto(rows.answers, what, where=where)
    return rows


def ngram_lookup(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """A string, a bar, and `items` symbols that stand in the string once, after which the next one is asked for."""
    size = length - 1 - n.items
    require(n.symbols >= 2, f"data.probe.symbols={n.symbols} makes strings of one letter: use 2 or more")
    require_length(length, 2 * n.items + 2, f"a string, and data.probe.items={n.items} of its symbols")
    rows, open_rows = blank_rows(count, length, n.symbols), np.arange(count)
    for _ in range(TRIES):  # a string in which each n-gram comes twice is drawn again
        text = rng.integers(n.symbols, size=(len(open_rows), size))
        windows = np.lib.stride_tricks.sliding_window_view(text, n.items, axis=1)  # (rows, windows, items)
        code = (windows * n.symbols ** np.arange(n.items)).sum(-1)
        twice = seen_before(code) | seen_before(code[:, ::-1])[:, ::-1]
        score = np.where(twice[:, :-1], -1.0, rng.random((len(open_rows), size - n.items)))  # the last has no next one
        place, done = score.argmax(axis=1), score.max(axis=1) >= 0
        rows.inputs[open_rows[done], :size] = text[done]
        rows.inputs[open_rows[done], size + 1:] = windows[done, place[done]]
        rows.answers[open_rows[done], -1] = text[done, place[done] + n.items]
        open_rows = open_rows[~done]
        if not len(open_rows):
            return rows
    raise ValueError(f"data.probe.items={n.items} symbols hardly ever stand once in a string of {size} of "
                     f"data.probe.symbols={n.symbols}: use more of either, or shorter rows")
