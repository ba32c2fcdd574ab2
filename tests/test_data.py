import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import DataConfig
from corpora import load_corpus
from data import Batches, eval_batches, row_starts
from shards import prepare
from tokenizer import train_tokenizer


def stream(lengths):
    """A part in memory, of documents that are counting numbers: no two tokens are the same."""
    starts = np.cumsum([0, *lengths[:-1]])
    return SimpleNamespace(tokens=np.arange(sum(lengths)), document_starts=starts, pad_id=-1,
                           num_tokens=sum(lengths), num_documents=len(lengths))


def plain_rows(starts, num_tokens, seq_len, reach):
    """row_starts as a loop over rows."""
    rows, position = [], 0
    while position < num_tokens:
        rows.append(position)
        within = [start for start in [*starts, num_tokens]
                  if position < start <= position + reach]
        position = within[-1] if within else position + seq_len
    return rows


lengths_and_row = st.tuples(st.lists(st.integers(2, 30), min_size=1, max_size=12),
                            st.integers(1, 12))


@given(lengths_and_row, st.integers(0, 1))
def test_rows_are_those_of_a_plain_loop(case, more):
    lengths, seq_len = case
    part, reach = stream(lengths), seq_len + more
    rows = row_starts(part.document_starts, part.num_tokens, seq_len=seq_len, reach=reach)
    assert rows.tolist() == plain_rows(part.document_starts, part.num_tokens, seq_len, reach)


def test_rows_of_a_million_documents_take_less_than_two_seconds():
    lengths = np.random.default_rng(0).integers(2, 60, 1_000_000)
    starts = np.cumsum(lengths) - lengths
    began = time.process_time()
    row_starts(starts, int(lengths.sum()), seq_len=32, reach=33)
    assert time.process_time() - began < 2


def all_rows(batches):
    """The rows of an epoch, (rows, t + 1)."""
    assert batches.batch_size == 1
    pairs = [batches[step] for step in range(batches.rows_per_epoch)]
    return [torch.cat([x[0], y[0, -1:]]).tolist() for x, y in pairs]


def test_targets_are_the_inputs_one_token_later():
    x, y = Batches(stream([40, 50]), batch_size=3, seq_len=7)[2]
    assert x.shape == y.shape == (3, 7)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous() and y.is_contiguous()
    assert torch.equal(y, x + 1)


def test_rows_start_with_the_document_that_was_cut():
    rows = all_rows(Batches(stream([4, 3, 9, 2, 2]), batch_size=1, seq_len=5, shuffle=False))
    assert [row[0] for row in rows] == [0, 4, 7, 12, 18]  # 12: the document of 9 goes on
    assert rows[0] == [0, 1, 2, 3, 4, 5]
    assert rows[-1] == [18, 19, 0, 1, 2, 3]  # the ring closes


def test_documents_that_just_fill_a_row_are_a_row_each():
    rows = all_rows(Batches(stream([6, 6, 6]), batch_size=1, seq_len=5, shuffle=False))
    assert [row[0] for row in rows] == [0, 6, 12]


@given(lengths_and_row)
def test_an_epoch_shows_every_document_from_its_start(case):
    lengths, seq_len = case
    part = stream([*lengths, 30])  # never shorter than a row
    rows = all_rows(Batches(part, batch_size=1, seq_len=seq_len, shuffle=False))
    targets = {token for row in rows for token in row[1:]}
    assert targets >= set(range(part.num_tokens)) - set(part.document_starts.tolist())
    for start, length in zip(part.document_starts.tolist(), lengths, strict=False):
        if length <= seq_len + 1:
            document = list(range(start, start + length))
            assert any(row[row.index(start):][:length] == document
                       for row in rows if start in row)


def test_an_epoch_takes_every_row_once_in_a_fresh_order():
    batches = Batches(stream([9, 3, 5, 8] * 10), batch_size=1, seq_len=6, seed=3)
    rows = [batches[step][0][0, 0].item() for step in range(2 * batches.rows_per_epoch)]
    first, second = rows[:batches.rows_per_epoch], rows[batches.rows_per_epoch:]
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second != sorted(second)
    other = Batches(stream([9, 3, 5, 8] * 10), batch_size=1, seq_len=6, seed=4)
    assert first != [other[step][0][0, 0].item() for step in range(batches.rows_per_epoch)]


def test_one_long_document_is_cut_elsewhere_in_each_epoch():
    batches = Batches(stream([1000]), batch_size=1, seq_len=10)
    rows = [batches[step] for step in range(3 * batches.rows_per_epoch)]
    offsets = []
    for epoch in range(3):
        part = rows[epoch * batches.rows_per_epoch:][:batches.rows_per_epoch]
        assert len({token for _, y in part for token in y.flatten().tolist()}) >= 999
        offsets.append({x[0, 0].item() % 10 for x, _ in part})
    assert all(len(offset) == 1 for offset in offsets)
    assert len(set.union(*offsets)) > 1


def test_an_epoch_begins_a_row_with_each_document_longer_than_a_row():
    part = stream([40, 55, 70])
    batches = Batches(part, batch_size=1, seq_len=10)
    for epoch in range(3):
        rows = range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch)
        firsts = {batches[step][0][0, 0].item() for step in rows}
        assert firsts >= set(part.document_starts.tolist())


def test_any_batch_is_the_same_whatever_was_taken_before():
    def fresh():
        return Batches(stream([9, 3, 5, 8] * 10), batch_size=7, seq_len=6, seed=1)

    walked = fresh()
    pairs = [walked[step] for step in range(40)]
    for step in (39, 0, 17):
        resumed = fresh()[step]
        assert torch.equal(resumed[0], pairs[step][0]) and torch.equal(resumed[1], pairs[step][1])
        assert torch.equal(walked[step][0], pairs[step][0])


def test_ranks_share_the_rows_of_a_batch():
    part = stream([9, 3, 5, 8] * 10)
    whole = Batches(part, batch_size=6, seq_len=6)[3][0]
    ranks = [Batches(part, batch_size=3, seq_len=6, rank=rank, world_size=2)[3][0]
             for rank in range(2)]
    assert torch.equal(torch.cat(ranks), whole)


@pytest.mark.parametrize("settings, message", [
    ({"seq_len": 20}, r"model.max_seq_len=20 is longer than the text \(20 tokens\): use 19 or less"),
    ({"seq_len": 5, "seed": -1}, "train.seed=-1 is negative"),
])
def test_rows_that_cannot_be_filled_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Batches(stream([12, 8]), batch_size=1, **settings)
    with pytest.raises(IndexError, match="step=-1"):
        Batches(stream([12, 8]), batch_size=1, seq_len=5)[-1]


@given(lengths_and_row, st.integers(1, 5))
def test_evaluation_counts_every_target_once(case, batch_size):
    lengths, seq_len = case
    part = stream(lengths)
    inputs, targets = [], []
    for x, y in eval_batches(part, batch_size, seq_len):
        assert x.shape == y.shape == (batch_size, seq_len)
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(y == -100, x == part.pad_id)
        inputs += x[y != -100].tolist()
        targets += y[y != -100].tolist()
    assert inputs == list(range(part.num_tokens - 1))
    assert targets == list(range(1, part.num_tokens))


@given(lengths_and_row)
def test_evaluation_keeps_documents_whole_where_they_fit(case):
    lengths, seq_len = case
    part = stream(lengths)
    rows = [row.tolist() for x, _ in eval_batches(part, 3, seq_len) for row in x]
    for start, length in zip(part.document_starts.tolist(), lengths, strict=True):
        document = [token for token in range(start, start + length) if token < part.num_tokens - 1]
        if len(document) <= seq_len:
            assert any(set(document) <= set(row) for row in rows)


def test_the_way_of_the_data_from_text_to_batches(tmp_path):
    corpus = load_corpus(DataConfig(num_stories=50))
    tokenizer = train_tokenizer("bpe", corpus.train(), 600)
    [(train, _)], val = prepare(corpus, tokenizer, tmp_path)
    x, _ = Batches(train, batch_size=4, seq_len=64)[0]
    assert any(tokenizer.decode(x[0].tolist())[:30] in text for text in corpus.train())
    counted = sum((y != -100).sum().item() for _, y in eval_batches(val, 4, 64))
    assert counted == val.num_tokens - 1
