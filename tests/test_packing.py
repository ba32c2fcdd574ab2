"""Layouts of documents in rows: every target once, no more padding than must be, and fast."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.packing import EVAL_LAYOUTS, LAYOUTS, best_fit, documents_layout, pad_layout, row_starts

lengths_and_row = st.tuples(st.lists(st.integers(2, 30), min_size=1, max_size=12),
                            st.integers(1, 12))


def starts_of(lengths) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def segments(layout) -> list[list[tuple[int, int]]]:
    """(first input, inputs) of each segment, by row."""
    found = list(zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True))
    return [found[a:b] for a, b in zip(layout.first_segments, layout.first_segments[1:], strict=False)]


def plain_rows(starts, num_tokens, seq_len, reach):
    """row_starts as a loop over rows."""
    rows, position = [], 0
    while position < num_tokens:
        rows.append(position)
        within = [start for start in [*starts, num_tokens]
                  if position < start <= position + reach]
        position = within[-1] if within else position + seq_len
    return rows


@given(lengths_and_row, st.integers(0, 1))
def test_rows_are_those_of_a_plain_loop(case, more):
    lengths, seq_len = case
    starts, num_tokens = starts_of(lengths), sum(lengths)
    rows = row_starts(starts, num_tokens, seq_len=seq_len, reach=seq_len + more)
    assert rows.tolist() == plain_rows(starts, num_tokens, seq_len, seq_len + more)


def test_pad_gives_each_document_a_row_and_cuts_a_long_one():
    layout = pad_layout(starts_of([4, 12, 2, 6]), 24, 5)
    assert segments(layout) == [[(0, 3)], [(4, 5)], [(9, 5)], [(14, 1)], [(16, 1)], [(18, 5)]]


def test_documents_stand_where_they_just_fit():
    layout = documents_layout(starts_of([4, 12, 2, 6, 3]), 27, 5)  # targets: 3, 5 + 5 + 1, 1, 5, 2
    assert segments(layout) == [[(0, 3), (24, 2)], [(4, 5)], [(9, 5)], [(14, 1), (16, 1)], [(18, 5)]]


@given(lengths_and_row, st.sampled_from(["pad", "documents"]))
def test_every_document_is_there_once_and_whole_where_it_fits(case, packing):
    lengths, seq_len = case
    rows = segments(LAYOUTS[packing](starts_of(lengths), sum(lengths), seq_len))
    assert all(0 < sum(count for _, count in row) <= seq_len for row in rows)
    found = sorted(segment for row in rows for segment in row)
    expected = [(start + cut, min(seq_len, length - 1 - cut)) for start, length in zip(starts_of(lengths), lengths,
                strict=True) for cut in range(0, length - 1, seq_len)]
    assert found == expected


def plain_best_fit(lengths, seq_len) -> list[int]:
    """The room that is left in each row: one segment at a time, the longest first, into the fullest row it fits."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fullest = min((room for room in rooms if room >= length), default=None)
        if fullest is None:
            rooms.append(seq_len - length)
        else:
            rooms[rooms.index(fullest)] -= length
    return sorted(rooms)


@given(st.integers(1, 14).flatmap(lambda n: st.tuples(st.lists(st.integers(1, n), max_size=30), st.just(n))))
def test_best_fit_is_that_of_a_plain_loop(case):
    lengths, seq_len = case
    row = best_fit(np.array(lengths, np.int64), seq_len)
    rooms = seq_len - np.bincount(row, weights=lengths) if lengths else np.array([])
    assert sorted(rooms.tolist()) == plain_best_fit(lengths, seq_len)


@given(lengths_and_row)
def test_rows_stand_in_the_order_of_the_text_by_their_longest_segment(case):
    lengths, seq_len = case
    rows = segments(documents_layout(starts_of(lengths), sum(lengths), seq_len))
    longest = [min(segment for segment in row if segment[1] == max(n for _, n in row)) for row in rows]
    assert longest == sorted(longest)


def many_lengths(count: int) -> np.ndarray:
    """Documents as the web has them: the middle one of 150 tokens, a few of many thousands."""
    return np.exp(np.random.default_rng(0).normal(5, 1, count)).astype(np.int64) + 2


def test_documents_waste_next_to_nothing():
    lengths = many_lengths(20_000)
    wasted = {}
    for packing in ("pad", "documents"):
        layout = LAYOUTS[packing](starts_of(lengths), int(lengths.sum()), 1024)
        wasted[packing] = 1 - layout.num_targets / (layout.num_rows * 1024)
    assert wasted["documents"] < 0.002 < 0.7 < wasted["pad"]


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), EVAL_LAYOUTS["stream"]])
def test_rows_of_a_million_documents_take_less_than_two_seconds(layout):
    lengths = many_lengths(1_000_000)
    starts = starts_of(lengths)
    began = time.process_time()
    layout(starts, int(lengths.sum()), 512)
    assert time.process_time() - began < 2
