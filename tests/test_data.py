import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import DataConfig
from corpora.corpus import load_corpus
from corpora.packing import LAYOUTS
from corpora.shards import prepare
from data import Batches, eval_batches, interleave, prefetched
from tokenizer import train_tokenizer


def stream(lengths):
    """A part in memory, of documents that are counting numbers: no two tokens are the same."""
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.arange(sum(lengths))
    return SimpleNamespace(tokens=tokens, targets=tokens, document_starts=starts, pad_id=-1,
                           num_tokens=sum(lengths), num_documents=len(lengths))


lengths_and_row = st.tuples(st.lists(st.integers(2, 30), min_size=1, max_size=12),
                            st.integers(1, 12))


def batches_of(part, **settings):
    return Batches([(part, 1.0)], **settings)


def assert_same_batch(batch, expected):
    assert [None if x is None else x.tolist() for x in batch[:3]] == [
        None if x is None else x.tolist() for x in expected[:3]]
    assert batch.num_targets == expected.num_targets


def all_rows(batches):
    """The rows of an epoch, (rows, t + 1)."""
    assert batches.batch_size == 1
    taken = [batches[step] for step in range(batches.rows_per_epoch)]
    return [torch.cat([batch.x[0], batch.y[0, -1:]]).tolist() for batch in taken]


def test_targets_are_the_inputs_one_token_later():
    x, y, documents, num_targets, *_ = batches_of(stream([40, 50]), batch_size=3, seq_len=7)[2]
    assert x.shape == y.shape == (3, 7)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous() and y.is_contiguous()
    assert torch.equal(y, x + 1)
    assert documents is None and num_targets == 21


def test_rows_start_with_the_document_that_was_cut():
    rows = all_rows(batches_of(stream([4, 3, 9, 2, 2]), batch_size=1, seq_len=5, shuffle=False))
    assert [row[0] for row in rows] == [0, 4, 7, 12, 18]  # 12: the document of 9 goes on
    assert rows[0] == [0, 1, 2, 3, 4, 5]
    assert rows[-1] == [18, 19, 0, 1, 2, 3]  # the ring closes


def test_documents_that_just_fill_a_row_are_a_row_each():
    rows = all_rows(batches_of(stream([6, 6, 6]), batch_size=1, seq_len=5, shuffle=False))
    assert [row[0] for row in rows] == [0, 6, 12]


@given(lengths_and_row)
def test_an_epoch_shows_every_document_from_its_start(case):
    lengths, seq_len = case
    part = stream([*lengths, 30])  # never shorter than a row
    rows = all_rows(batches_of(part, batch_size=1, seq_len=seq_len, shuffle=False))
    targets = {token for row in rows for token in row[1:]}
    assert targets >= set(range(part.num_tokens)) - set(part.document_starts.tolist())
    for start, length in zip(part.document_starts.tolist(), lengths, strict=False):
        if length <= seq_len + 1:
            document = list(range(start, start + length))
            assert any(row[row.index(start):][:length] == document
                       for row in rows if start in row)


def test_an_epoch_takes_every_row_once_in_a_fresh_order():
    batches = batches_of(stream([9, 3, 5, 8] * 10), batch_size=1, seq_len=6, seed=3)
    rows = [batches[step].x[0, 0].item() for step in range(2 * batches.rows_per_epoch)]
    first, second = rows[:batches.rows_per_epoch], rows[batches.rows_per_epoch:]
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second != sorted(second)
    other = batches_of(stream([9, 3, 5, 8] * 10), batch_size=1, seq_len=6, seed=4)
    assert first != [other[step].x[0, 0].item() for step in range(batches.rows_per_epoch)]


def test_one_long_document_is_cut_elsewhere_in_each_epoch():
    batches = batches_of(stream([1000]), batch_size=1, seq_len=10)
    rows = [batches[step] for step in range(3 * batches.rows_per_epoch)]
    offsets = []
    for epoch in range(3):
        part = rows[epoch * batches.rows_per_epoch:][:batches.rows_per_epoch]
        assert len({token for batch in part for token in batch.y.flatten().tolist()}) >= 999
        offsets.append({batch.x[0, 0].item() % 10 for batch in part})
    assert all(len(offset) == 1 for offset in offsets)
    assert len(set.union(*offsets)) > 1


def test_an_epoch_begins_a_row_with_each_document_longer_than_a_row():
    part = stream([40, 55, 70])
    batches = batches_of(part, batch_size=1, seq_len=10)
    for epoch in range(3):
        rows = range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch)
        firsts = {batches[step].x[0, 0].item() for step in rows}
        assert firsts >= set(part.document_starts.tolist())


each_packing = pytest.mark.parametrize("packing", LAYOUTS)


@each_packing
def test_any_batch_is_the_same_whatever_was_taken_before(packing):
    def fresh():
        parts = [(stream([9, 3, 5, 8] * 10), 0.7), (stream([12, 4] * 3), 0.3)]
        return Batches(parts, batch_size=7, seq_len=6, seed=1, packing=packing)

    walked = fresh()
    taken = [walked[step] for step in range(40)]
    for step in (39, 0, 17):
        assert_same_batch(fresh()[step], taken[step])
        assert_same_batch(walked[step], taken[step])


@each_packing
def test_ranks_share_the_rows_of_a_batch(packing):
    parts = [(stream([9, 3, 5, 8] * 10), 0.7), (stream([12, 4] * 3), 0.3)]
    whole = Batches(parts, batch_size=6, seq_len=6, packing=packing)[3].x
    ranks = [Batches(parts, batch_size=3, seq_len=6, packing=packing, rank=rank, world_size=2)[3].x
             for rank in range(2)]
    assert torch.equal(torch.cat(ranks), whole)


@given(lengths_and_row, st.sampled_from(["pad", "documents"]))
def test_an_epoch_of_whole_documents_has_each_of_their_targets_once(case, packing):
    lengths, seq_len = case
    part = stream(lengths)
    batches = batches_of(part, batch_size=1, seq_len=seq_len, packing=packing)
    found = []
    for step in range(batches.rows_per_epoch):
        x, y, _, num_targets, *_ = batches[step]
        assert torch.equal(y == -100, x == part.pad_id) and num_targets == (y != -100).sum()
        assert torch.equal(y[y != -100], x[y != -100] + 1)
        found += y[y != -100].tolist()
    assert sorted(found) == sorted(set(range(part.num_tokens)) - set(part.document_starts.tolist()))


@given(lengths_and_row)
def test_packed_rows_say_which_document_each_token_is_of(case):
    lengths, seq_len = case
    part = stream(lengths)
    batches = batches_of(part, batch_size=2, seq_len=seq_len, packing="documents")
    for step in range(batches.rows_per_epoch // 2 + 1):
        batch = batches[step]
        for x, ids in zip(batch.x, batch.documents, strict=True):
            text = x != part.pad_id
            assert torch.equal(ids == -1, ~text)
            document = np.searchsorted(part.document_starts, x[text], side="right")
            changes, starts = np.diff(document) != 0, ids[text].diff().numpy()
            assert (starts == changes).all() and ids[0] == 0


# ---- several sources ----

weights = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5)


@given(weights, st.integers(0, 10**7), st.integers(1, 60))
def test_sources_take_turns_by_their_rates_to_a_row_at_any_time(rates, first, count):
    rates = np.array(rates)
    sources, numbers = interleave(rates, first, count)
    assert len(sources) == len(numbers) == count
    for which, share in enumerate(rates / rates.sum()):
        mine = numbers[sources == which]
        assert mine.tolist() == list(range(mine[0], mine[0] + len(mine))) if len(mine) else True
        assert abs(mine[0] - share * first) <= len(rates) / 2 + 1 if len(mine) else True


@given(weights, st.integers(1, 9))
def test_no_row_is_left_out_or_taken_twice(rates, count):
    rates = np.array(rates)
    whole = [pair for pair in zip(*interleave(rates, 0, 90), strict=True)]
    parts = [pair for first in range(0, 90, count) for pair in zip(*interleave(rates, first, count), strict=True)]
    assert parts[:90] == whole and len(set(whole)) == 90
    for which in range(len(rates)):
        mine = [number for source, number in whole if source == which]
        assert mine == list(range(len(mine)))


@each_packing
def test_the_share_of_each_source_follows_its_weight_and_its_epochs_are_its_own(packing):
    large, small = stream([9, 3, 5, 8] * 30), stream([4, 2, 7] * 3)
    small.tokens = small.targets = small.tokens + 10_000
    batches = Batches([(large, 0.25), (small, 0.75)], batch_size=5, seq_len=6, packing=packing)
    targets = torch.cat([batches[step].y.flatten() for step in range(400)])
    share = (targets >= 10_000).sum() / (targets >= 0).sum()
    assert share == pytest.approx(0.75, abs=0.005)
    counts = targets[targets >= 10_000].bincount()[10_000:]
    seen = counts[counts > 0]  # all tokens but the first of each document, where none crosses its end
    assert packing == "stream" or seen.max() - seen.min() <= 1
    assert packing == "stream" or len(seen) == small.num_tokens - small.num_documents


def test_another_source_has_another_order():
    part = stream([5] * 60)
    batches = Batches([(part, 0.5), (part, 0.5)], batch_size=2, seq_len=4)
    rows = torch.stack([batches[step].x[:, 0] for step in range(batches.rows_per_epoch // 2)])
    assert rows[:, 0].sort().values.equal(rows[:, 1].sort().values) and not rows[:, 0].equal(rows[:, 1])


@pytest.mark.parametrize("settings, message", [
    ({"seq_len": 20}, r"model.max_seq_len=20 is longer than the text \(20 tokens\): use 19 or less"),
    ({"seq_len": 5, "seed": -1}, "train.seed=-1 is negative"),
])
def test_rows_that_cannot_be_filled_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        batches_of(stream([12, 8]), batch_size=1, **settings)
    with pytest.raises(IndexError, match="step=-1"):
        batches_of(stream([12, 8]), batch_size=1, seq_len=5)[-1]


@given(lengths_and_row, st.integers(1, 5), st.sampled_from([*LAYOUTS]))
def test_evaluation_counts_every_target_once(case, batch_size, packing):
    lengths, seq_len = case
    part = stream(lengths)
    inputs, targets = [], []
    for x, y, documents, num_targets, *_ in eval_batches(part, batch_size, seq_len, packing):
        assert x.shape == y.shape == (batch_size, seq_len)
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(y == -100, x == part.pad_id) and num_targets == (y != -100).sum()
        assert (documents is None) == (packing != "documents")
        inputs += x[y != -100].tolist()
        targets += y[y != -100].tolist()
    first = {0} if packing == "stream" else set(part.document_starts.tolist())
    assert sorted(targets) == sorted(set(range(part.num_tokens)) - first)
    assert targets == [token + 1 for token in inputs]


@given(lengths_and_row)
def test_evaluation_keeps_documents_whole_where_they_fit(case):
    lengths, seq_len = case
    part = stream(lengths)
    rows = [row.tolist() for batch in eval_batches(part, 3, seq_len) for row in batch.x]
    for start, length in zip(part.document_starts.tolist(), lengths, strict=True):
        document = [token for token in range(start, start + length) if token < part.num_tokens - 1]
        if len(document) <= seq_len:
            assert any(set(document) <= set(row) for row in rows)


def test_the_way_of_the_data_from_text_to_batches(tmp_path):
    corpus = load_corpus(DataConfig(num_stories=50))
    tokenizer = train_tokenizer("bpe", corpus.train(), 600)
    parts, val = prepare(corpus, tokenizer, tmp_path)
    x = Batches(parts, batch_size=4, seq_len=64)[0].x
    assert any(tokenizer.decode(x[0].tolist())[:30] in text for text in corpus.train())
    counted = sum(batch.num_targets for batch in eval_batches(val, 4, 64))
    assert counted == val.num_tokens - 1


# ---- ahead of time ----


class Counted:
    """Batches that note which were made, and fail at some."""

    def __init__(self, fails_at=None):
        self.made, self.fails_at = [], fails_at

    def __getitem__(self, number):
        if number == self.fails_at:
            raise OSError(f"batch {number} cannot be read")
        self.made.append(number)
        return number


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_batches_come_in_order_however_many_are_made_ahead(depth):
    batches = Counted()
    with prefetched(batches, range(5, 25), depth=depth) as coming:
        assert list(coming) == list(range(5, 25))
    assert batches.made == list(range(5, 25)) and not prefetching()


@pytest.mark.parametrize("depth", [0, 2])
def test_no_more_are_made_than_there_is_room_for(depth):
    batches = Counted()
    with prefetched(batches, range(100), depth=depth) as coming:
        assert [next(coming), next(coming)] == [0, 1]
        wait_for(lambda: len(batches.made) == 2 + depth)
        time.sleep(0.05)
        assert batches.made == list(range(2 + depth))
    assert not prefetching()


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_what_goes_wrong_comes_where_the_batch_would_have(depth):
    with prefetched(Counted(fails_at=3), range(9), depth=depth) as coming:
        assert [next(coming) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="^batch 3 cannot be read$"):
            next(coming)
    assert not prefetching()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_however_the_work_does(error):
    with pytest.raises(error), prefetched(Counted(), range(10**9), depth=3) as coming:
        next(coming)
        raise error
    assert not prefetching()
