"""The layout of documents in rows of `seq_len` tokens: the `data.packing` flag.

A row holds one segment of text or several, then padding. A layout is made of integers, computed from the positions at
which documents start: no token is read.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Row r holds the segments first_segments[r] to first_segments[r + 1] - 1.

    Segment i is the lengths[i] inputs from token starts[i] on; its targets are the tokens one position later.
    Shape: starts and lengths (segments,), first_segments (rows + 1,), all int64.
    """

    starts: np.ndarray
    lengths: np.ndarray
    first_segments: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.first_segments) - 1

    @property
    def num_targets(self) -> int:
        return int(self.lengths.sum())

    def places(self, rows: np.ndarray, firsts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each input of the rows: its place in a batch, its token, the number of its segment in the row.

        Row rows[i] begins at place firsts[i]. Shape: rows and firsts (n,) -> three times (inputs,).
        """
        counts = self.first_segments[rows + 1] - self.first_segments[rows]
        number = ranges(counts)
        segment = np.repeat(self.first_segments[rows], counts) + number
        lengths = self.lengths[segment]
        before = np.cumsum(lengths) - lengths  # inputs of the earlier segments
        first = np.repeat(firsts - before[np.cumsum(counts) - counts], counts)
        inputs = np.arange(lengths.sum())
        token = inputs + np.repeat(self.starts[segment] - before, lengths)
        return inputs + np.repeat(first, lengths), token, np.repeat(number, lengths)


def ranges(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... count - 1 for each count, concatenated."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def row_starts(
    document_starts: np.ndarray, num_tokens: int, *, seq_len: int, reach: int
) -> np.ndarray:
    """First positions of rows that begin with a document if they can.

    The next row begins at the last document that starts within `reach` tokens. If none does, the document is longer
    than a row, and the next row begins inside it, `seq_len` tokens later.
    Shape: (num_documents,) -> (rows,), int64.
    """
    bounds = np.append(document_starts, num_tokens)
    further_rows = np.maximum(0, -(-(np.diff(bounds) - reach) // seq_len))  # that begin inside the document
    ends = bounds[:-1] + further_rows * seq_len + reach
    following = memoryview(np.searchsorted(bounds, ends, side="right") - 1)

    def followed():
        document = 0
        while document < len(following):
            yield document
            document = following[document]

    chain = np.fromiter(followed(), np.int64)
    counts = further_rows[chain] + 1
    return np.repeat(bounds[chain], counts) + ranges(counts) * seq_len


def stream_layout(document_starts: np.ndarray, num_tokens: int, seq_len: int) -> Layout:
    """Full rows of contiguous text. A row that cuts a document overlaps with the next, which begins with it."""
    starts = row_starts(document_starts, num_tokens, seq_len=seq_len, reach=seq_len + 1)
    return Layout(starts, np.broadcast_to(np.int64(seq_len), len(starts)), np.arange(len(starts) + 1))


def stream_layout_once(document_starts: np.ndarray, num_tokens: int, seq_len: int) -> Layout:
    """The same without overlap, with padding at the end: every token but the first is a target once."""
    last = num_tokens - 1  # a target only
    starts = row_starts(document_starts, last, seq_len=seq_len, reach=seq_len)
    return Layout(starts, np.diff(starts, append=last), np.arange(len(starts) + 1))


def pad_layout(document_starts: np.ndarray, num_tokens: int, seq_len: int) -> Layout:
    """One document per row; one longer than a row goes on over several."""
    num_targets = np.diff(document_starts, append=num_tokens) - 1
    counts = -(-num_targets // seq_len)
    number = ranges(counts)
    starts = np.repeat(document_starts, counts) + number * seq_len
    lengths = np.minimum(np.repeat(num_targets, counts) - number * seq_len, seq_len)
    return Layout(starts, lengths, np.arange(len(starts) + 1))


def documents_layout(document_starts: np.ndarray, num_tokens: int, seq_len: int) -> Layout:
    """Several whole documents per row, so that little is padding; one longer than a row is cut into rows first.

    Best-fit packing, Ding et al. 2024, arXiv:2404.10830. Rows are in the order of their longest documents.
    """
    starts, lengths, _ = pad_layout(document_starts, num_tokens, seq_len)
    row = best_fit(lengths, seq_len)
    order = np.argsort(row, kind="stable")
    return Layout(starts[order], lengths[order], np.append(0, np.cumsum(np.bincount(row))))


def best_fit(lengths: np.ndarray, seq_len: int) -> np.ndarray:
    """The row of each segment: longest first, each into the fullest row that has room for it.

    Segments of one length are placed together, so the steps grow with the number of lengths, not of segments.
    Shape: lengths (segments,), each from 1 to seq_len -> (segments,), int64.
    """
    row, openers = np.empty(len(lengths), np.int64), [np.empty(0, np.int64)]
    num_rows, rows_with = 0, defaultdict(list)  # free tokens -> arrays of the rows that have so many
    for segments in longest_first(lengths, seq_len):
        length = int(lengths[segments[0]])
        rooms = sorted(room for room, arrays in rows_with.items() if arrays and room >= length)
        for room in [*rooms, seq_len]:
            fit = room // length
            needed = -(-len(segments) // fit)
            if room < seq_len:
                rows, *rest = np.split(np.concatenate(rows_with.pop(room)), [needed])
                rows_with[room] = [array for array in rest if len(array)]
            else:
                rows = np.arange(num_rows, num_rows + needed)
                openers.append(segments[::fit])
                num_rows += needed
            placed = np.repeat(rows, fit)[: len(segments)]
            row[segments[: len(placed)]] = placed
            segments = segments[len(placed) :]
            in_last = len(placed) - fit * (len(rows) - 1)
            rows_with[room - fit * length].append(rows[:-1])
            rows_with[room - in_last * length].append(rows[-1:])
            if not len(segments):
                break
    return np.argsort(np.argsort(np.concatenate(openers)))[row]


def longest_first(lengths: np.ndarray, seq_len: int) -> Iterator[np.ndarray]:
    """The segments of each length, as numbers in ascending order, longest first."""
    shortness = (seq_len - lengths).astype(np.min_scalar_type(seq_len))  # numpy radix-sorts small integers
    order = np.argsort(shortness, kind="stable")
    ends = np.cumsum(np.bincount(shortness))
    return (segments for segments in np.split(order, ends[:-1]) if len(segments))


# for training; and for evaluation, in which every token is a target once
LAYOUTS = {"stream": stream_layout, "pad": pad_layout, "documents": documents_layout}
EVAL_LAYOUTS = LAYOUTS | {"stream": stream_layout_once}
