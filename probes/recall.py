"""Recall: pairs of a key and a value stand in a row, and a key asks for its value.

The first half of the symbols are keys, the second half values. What follows them is said at each task.
"""

import numpy as np
from numpy.random import Generator

from probes.task import (
    IGNORED,
    Numbers,
    Rows,
    blank_rows,
    distinct,
    in_a_row,
    named,
    require,
    require_length,
    seen_before,
)

POWER = 0.01  # of the gaps of MQAR, as published
MOTIF = 3  # symbols of a motif at most


def pair_words(n: Numbers) -> list[str]:
    """Keys and values."""
    return [*named("k", n.symbols // 2), *named("v", n.symbols // 2)]


def blank_words(n: Numbers) -> list[str]:
    """Keys, values and a blank."""
    return [*pair_words(n), "_"]


def noise_words(n: Numbers) -> list[str]:
    """Keys, values, and as many noises as these together."""
    return [*pair_words(n), *named("n", n.symbols)]


def half(n: Numbers, least: int) -> int:
    """The number of keys. Raises ValueError if there are fewer than `least`."""
    require(n.symbols % 2 == 0 and n.symbols >= 2 * least,
            f"data.probe.symbols={n.symbols} must be even, half of them keys, and at least {2 * least}")
    return n.symbols // 2


def mqar(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Pairs, then each key once more, which asks for its value, and blanks.

    A key comes after a gap of g pairs of places with a weight of g ^ (0.01 - 1), so most come soon. A longer row has
    the same pairs and more places for the keys.
    """
    keys_known, pairs = half(n, n.items), 2 * n.items
    require_length(length, 2 * pairs, f"data.probe.items={n.items} pairs and their keys")
    rows = blank_rows(count, length, n.symbols)
    keys = distinct(rng, count, keys_known, n.items)
    values = keys_known + distinct(rng, count, keys_known, n.items)
    rows.inputs[:, :pairs:2], rows.inputs[:, 1:pairs:2] = keys, values
    slots = (length - pairs) // 2
    score = (POWER - 1) * np.log(np.arange(1, slots + 1)) + rng.gumbel(size=(count, slots))
    places = pairs + 2 * np.argsort(-score, axis=1)[:, :n.items]  # as if drawn one by one by their weights, none twice
    np.put_along_axis(rows.inputs, places, keys, axis=1)
    np.put_along_axis(rows.answers, places, values, axis=1)
    return rows


def recall(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Pairs of random keys; the value of a key is the same within a row. A key that comes again asks for its value."""
    keys_known = half(n, 1)
    require_length(length, 3, "a pair and its key")
    keys = rng.integers(keys_known, size=(count, -(-length // 2)))
    table = keys_known + rng.integers(keys_known, size=(count, keys_known))
    values = np.take_along_axis(table, keys, axis=1)
    rows = blank_rows(count, 2 * keys.shape[1], 0)
    rows.inputs[:, ::2], rows.inputs[:, 1::2] = keys, values
    rows.answers[:, ::2] = np.where(seen_before(keys), values, IGNORED)
    return Rows(rows.inputs[:, :length], rows.answers[:, :length])


def noisy_recall(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """The same; a share of what stands there is noise, a symbol between two pairs."""
    keys_known = half(n, 1)
    require_length(length, 3, "a pair and its key")
    size = count, length
    is_noise, keys = rng.random(size) < n.noise, rng.integers(keys_known, size=size)
    table = keys_known + rng.integers(keys_known, size=(count, keys_known))
    values = np.take_along_axis(table, keys, axis=1)
    again = seen_before(np.where(is_noise, -1 - np.arange(length), keys))
    first = np.where(is_noise, n.symbols + rng.integers(n.symbols, size=size), keys)
    used = np.stack([np.ones(size, bool), ~is_noise], axis=-1)
    answers = np.stack([np.where(again, values, IGNORED), np.full(size, IGNORED)], axis=-1)
    return Rows(in_a_row(np.stack([first, values], axis=-1), used, length, 0),
                in_a_row(answers, used, length, IGNORED))


def fuzzy_recall(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Recall in which a key and a value have one to three symbols.

    The keys of a row have one length, so that it is known where a key ends; a value has a length of its own. The
    symbols of the value are asked for if its key has come before.
    """
    keys_known, size = half(n, n.items), (count, length)
    require_length(length, 4 * MOTIF, "a pair of motifs, and its key")
    key_len = rng.integers(1, MOTIF + 1, size=count)
    keys = motifs(rng, key_len, keys_known, n.items)  # (count, items, MOTIF)
    values = keys_known + rng.integers(keys_known, size=keys.shape)
    value_len = rng.integers(1, MOTIF + 1, size=(count, n.items))
    which = rng.integers(n.items, size=size)
    row = np.arange(count)[:, None]
    pieces = np.concatenate([keys[row, which], values[row, which]], axis=-1)  # (count, length, 2 * MOTIF)
    place = np.arange(MOTIF)
    used = np.concatenate([np.broadcast_to(place < key_len[:, None, None], (*size, MOTIF)),
                           place < value_len[row, which][..., None]], axis=-1)
    asked = np.concatenate([np.zeros((*size, MOTIF), bool),
                            np.broadcast_to(seen_before(which)[..., None], (*size, MOTIF))], axis=-1)
    joined = in_a_row(pieces, used, length + 1, 0)
    is_asked = in_a_row(asked, used, length + 1, False)
    return Rows(joined[:, :-1], np.where(is_asked, joined, IGNORED)[:, 1:])


def motifs(rng: Generator, lengths: np.ndarray, known: int, size: int) -> np.ndarray:
    """`size` different motifs in each row, of the row's length. Shape: lengths (n,) -> (n, size, MOTIF)."""
    found = rng.integers(known, size=(len(lengths), size, MOTIF))
    is_single = lengths == 1
    found[is_single, :, 0] = distinct(rng, int(is_single.sum()), known, size)
    used = np.arange(MOTIF) < lengths[:, None, None]
    while True:
        code = (np.where(used, found, 0) * known ** np.arange(MOTIF)).sum(-1)
        twice = seen_before(code)
        if not twice.any():
            return found
        found[twice] = rng.integers(known, size=(int(twice.sum()), MOTIF))


def memorisation(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Keys, each followed by a blank, at which its value is asked for. A key has one value in all rows."""
    keys_known = half(n, 1)
    require_length(length, 2, "a key")
    table = keys_known + np.random.default_rng([n.seed, n.symbols]).integers(keys_known, size=keys_known)
    rows = blank_rows(count, length, n.symbols)
    keys = rng.integers(keys_known, size=(count, length // 2))
    rows.inputs[:, :2 * keys.shape[1]:2], rows.answers[:, 1::2] = keys, table[keys]
    return rows


def induction(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Random symbols, among them a mark once, and the mark at the end, which asks what followed it."""
    require(n.symbols >= 2, f"data.probe.symbols={n.symbols} leaves nothing to recall: use 2 or more")
    require_length(length, 3, "a mark, a symbol and the mark")
    rows = blank_rows(count, length, n.symbols)
    rows.inputs[:, :-1] = rng.integers(n.symbols, size=(count, length - 1))
    row, place = np.arange(count), rng.integers(length - 2, size=count)
    rows.inputs[row, place] = n.symbols
    rows.answers[:, -1] = rows.inputs[row, place + 1]
    return rows


def induction_words(n: Numbers) -> list[str]:
    """Symbols, and the mark."""
    return [*named("s", n.symbols), "!"]


def needle(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """A few pairs in a row of noise, and one of their keys at the end, which asks for its value."""
    keys_known, slots = half(n, n.items), (length - 1) // 2
    require_length(length, 2 * n.items + 1, f"data.probe.items={n.items} pairs and a key")
    rows = blank_rows(count, length, 0)
    rows.inputs[:] = n.symbols + rng.integers(n.symbols, size=rows.inputs.shape)
    keys = distinct(rng, count, keys_known, n.items)
    values = keys_known + rng.integers(keys_known, size=keys.shape)
    places = 2 * distinct(rng, count, slots, n.items)
    np.put_along_axis(rows.inputs, places, keys, axis=1)
    np.put_along_axis(rows.inputs, places + 1, values, axis=1)
    rows.inputs[:, -1], rows.answers[:, -1] = keys[:, 0], values[:, 0]  # their places are in random order
    return rows
