import os
import re
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import data
import tales
from data import Batches, TokenFile, eval_batches, load_corpus, prepare, row_starts
from tokenizer import ByteTokenizer, train_tokenizer

ROOT = Path(data.__file__).parent
BYTES = ByteTokenizer()
POEM = "Tiger, tiger, burning bright\nIn the forests of the night,\nWhat immortal hand or eye\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def corpus_of(folder, documents, **settings):
    path = write(folder / "text.txt", "|".join(documents))
    return load_corpus(str(path), separator="|", **settings)


def stream(lengths):
    """A part in memory, of documents that are counting numbers: no two tokens are the same."""
    starts = np.cumsum([0, *lengths[:-1]])
    return SimpleNamespace(tokens=np.arange(sum(lengths)), document_starts=starts, pad_id=-1,
                           num_tokens=sum(lengths), num_documents=len(lengths))


# ---- corpora ----


def test_several_documents_are_split_whole_and_the_last_ones_validate(tmp_path):
    documents = [f"tale {n}\r\n" for n in range(20)]
    corpus = corpus_of(tmp_path, documents)
    assert list(corpus.train()) == documents[:18]
    assert list(corpus.val()) == documents[18:]
    assert corpus.val_bits is None


def test_one_document_is_split_by_position(tmp_path):
    corpus = load_corpus(str(write(tmp_path / "a.txt", "é" * 70 + "z" * 30)), val_ratio=0.3)
    assert list(corpus.train()) == ["é" * 70]
    assert list(corpus.val()) == ["z" * 30]


def test_a_folder_and_a_glob_are_a_document_per_file_in_name_order(tmp_path):
    for name in ["b.txt", "a.txt", "deep/c.txt", "deep/d.md"]:
        write(tmp_path / name, name)
    folder, pattern = load_corpus(str(tmp_path)), load_corpus(str(tmp_path / "*" / "*"))
    assert [*folder.train(), *folder.val()] == ["a.txt", "b.txt", "deep/c.txt"]
    assert [*pattern.train(), *pattern.val()] == ["deep/c.txt", "deep/d.md"]


def test_blank_documents_are_left_out(tmp_path):
    corpus = corpus_of(tmp_path, ["", "one", " \n", "two", "three", ""], val_ratio=0.4)
    assert [*corpus.train(), *corpus.val()] == ["one", "two", "three"]


def test_the_fingerprint_follows_the_content_and_the_split_and_not_the_path(tmp_path):
    first = write(tmp_path / "a" / "first.txt", "one|two|three")
    moved = write(tmp_path / "b" / "moved.txt", "one|two|three")
    other = write(tmp_path / "c" / "other.txt", "one|two|four")
    base = load_corpus(str(first), separator="|").fingerprint
    assert load_corpus(str(moved), separator="|").fingerprint == base
    others = [load_corpus(str(other), separator="|"), load_corpus(str(first), separator="o"),
              load_corpus(str(first), separator="|", val_ratio=0.6)]
    assert len({base, *(corpus.fingerprint for corpus in others)}) == 4


def test_tales_validate_on_other_stories_that_no_seed_changes():
    corpora = [load_corpus("tales", num_stories=40, val_ratio=0.2, seed=seed) for seed in (0, 1)]
    train, val = list(corpora[0].train()), list(corpora[0].val())
    assert (len(train), len(val)) == (40, 8)
    assert not set(train) & set(val)
    assert train == [story.text for story in islice(tales.stories(0), 40)]
    assert list(corpora[1].val()) == val
    assert not set(corpora[1].train()) & set(train)
    assert corpora[0].fingerprint != corpora[1].fingerprint


def own_imports(name):
    """A file of ours, and all files of ours that it imports."""
    imported = re.findall(r"^(?:from|import) (\w+)", (ROOT / name).read_text(), re.MULTILINE)
    ours = [f"{module}.py" for module in imported if (ROOT / f"{module}.py").exists()]
    return {name}.union(*map(own_imports, ours))


def test_the_fingerprint_of_tales_covers_every_file_that_writes_them():
    assert own_imports("tales.py") == set(data.TALES_SOURCES)


def test_the_bits_of_tales_are_those_of_their_validation_stories():
    corpus = load_corpus("tales", num_stories=30, val_ratio=0.2)
    known = {story.text: story.bits for story in islice(tales.stories(data.VAL_SEED), 6)}
    assert corpus.val_bits == pytest.approx(sum(known[text] for text in corpus.val()))
    assert len(known) == 6


def test_no_more_than_a_thousand_stories_validate():
    corpus = load_corpus("tales", num_stories=1_000_000)
    assert sum(1 for _ in corpus.documents("val")) == 1000


@pytest.mark.parametrize("content, settings, message", [
    (b"", {}, "data.name=.* has no text"),
    (b" \n\n", {}, "data.name=.* has no text"),
    (b"Once \xff", {}, r"is not UTF-8 text \(byte 5\)"),
    (b"a|\xc3|b", {"separator": "|"}, r"is not UTF-8 text \(byte 2\)"),
    (b"Once", {"val_ratio": 0.01}, "data.val_ratio=0.01 .* part empty"),
    (b"one two", {"separator": "|"}, r"data.separator='\|' is nowhere in"),
    (b"one two", {"separator": ""}, "data.separator='' is empty"),
    (b"one two", {"val_ratio": 1.0}, "data.val_ratio=1.0 is not between 0 and 1"),
])
def test_text_that_cannot_be_used_is_one_clear_sentence(content, settings, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_corpus(str(tmp_path / "a.txt"), **settings)


@pytest.mark.parametrize("name", ["nowhere.txt", "*.nothing", "."])
def test_a_missing_file_names_the_path_and_the_known_corpora(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data.name='.*' is no text file.* tales"):
        load_corpus(name)


@pytest.mark.parametrize("settings", [{"separator": "|"}, {"num_stories": 0}, {"seed": -1}])
def test_settings_that_tales_cannot_have_are_errors(settings):
    with pytest.raises(ValueError, match=f"^data.{next(iter(settings))}="):
        load_corpus("tales", **settings)


# ---- encoded once ----


def test_every_document_is_on_disk_between_bos_and_eos(tmp_path):
    documents = [f"{n} é\n" * (n + 1) for n in range(10)]
    parts = prepare(corpus_of(tmp_path, documents, val_ratio=0.3), BYTES, tmp_path / "cache")
    for part, expected in zip(parts, (documents[:7], documents[7:]), strict=True):
        assert isinstance(part.tokens, np.memmap)
        found = np.split(part.tokens, part.document_starts[1:])
        assert [BYTES.decode(ids) for ids in found] == expected
        assert {(ids[0], ids[-1]) for ids in found} == {(BYTES.bos_id, BYTES.eos_id)}
        num_bytes = len("".join(expected).encode())
        assert part.num_bytes == num_bytes == BYTES.byte_lengths[part.tokens].sum()
        assert (part.num_documents, part.num_tokens) == (len(expected), num_bytes + 2 * len(found))
        assert part.bits is None


def test_the_bits_of_both_parts_are_kept(tmp_path):
    corpus = load_corpus("tales", num_stories=20)
    train, val = prepare(corpus, BYTES, tmp_path)
    assert val.bits == pytest.approx(corpus.val_bits)
    assert train.bits == pytest.approx(sum(tales.story(0, n).bits for n in range(20)))


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_long_documents_encoded_in_pieces_give_the_same_ids(kind, tmp_path, monkeypatch):
    text = POEM * 30 + "without a newline " * 20
    corpus = load_corpus(str(write(tmp_path / "a.txt", text)), val_ratio=0.05)
    tokenizer = train_tokenizer(kind, [text], None if kind == "char" else 39)
    monkeypatch.setattr(data, "CHUNK_CHARS", 100)
    train, _ = prepare(corpus, tokenizer, tmp_path / "cache")
    expected = tokenizer.encode(next(corpus.train()), bos=True, eos=True)
    assert train.tokens.tolist() == expected
    assert train.document_starts.tolist() == [0]


def test_ids_beyond_16_bits_are_kept(tmp_path):
    class Wide(ByteTokenizer):
        vocab_size = property(lambda self: 70_000, lambda self, size: None)

        def encode_batch(self, texts):
            return [[69_999] for _ in texts]

    train, _ = prepare(corpus_of(tmp_path, ["a", "b"]), Wide(), tmp_path / "cache")
    assert train.tokens.tolist() == [1, 69_999, 2]


class Unusable(ByteTokenizer):
    def encode_batch(self, texts):
        raise RuntimeError("encoded")


def test_the_second_time_nothing_is_encoded(tmp_path):
    corpus = corpus_of(tmp_path, ["one", "two"])
    first, _ = prepare(corpus, BYTES, tmp_path / "cache")
    again, _ = prepare(corpus, Unusable(), tmp_path / "cache")
    assert again.tokens.tolist() == first.tokens.tolist()
    with pytest.raises(RuntimeError, match="encoded"):
        prepare(corpus_of(tmp_path, ["one", "2"]), Unusable(), tmp_path / "cache")


def test_a_failed_encode_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"U\+007A"):
        prepare(corpus_of(tmp_path, ["a", "b", "z"]), train_tokenizer("char", ["ab"]),
                tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("file", ["val.bin", "val.starts", "val.json"])
def test_files_cut_short_are_noticed(file, tmp_path):
    prepare(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / "cache")
    folder, = (tmp_path / "cache").iterdir()
    os.truncate(folder / file, (folder / file).stat().st_size - 8)
    with pytest.raises(ValueError, match=f"cache '{folder}' is broken .*: delete it"):
        TokenFile(folder, "val")


ENCODER = """
import sys, time
from pathlib import Path
from data import load_corpus, prepare
from tokenizer import ByteTokenizer
class Waiting(ByteTokenizer):
    def encode_batch(self, texts):
        while not Path(sys.argv[3]).exists():
            time.sleep(0.02)
        return super().encode_batch(texts)
print(prepare(load_corpus(sys.argv[1]), Waiting(), Path(sys.argv[2]))[0].num_tokens)
"""


def encoder(text, cache, signal_file):
    """A process that encodes the text as soon as the signal file is there."""
    return subprocess.Popen([sys.executable, "-c", ENCODER, text, cache, signal_file], cwd=ROOT,
                            stdout=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_encode_is_not_taken_for_a_whole_one(tmp_path):
    text, cache = write(tmp_path / "a.txt", POEM * 10), tmp_path / "cache"
    process = encoder(text, cache, tmp_path / "never")
    wait_for(lambda: list(cache.glob("*.tmp/train.bin")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.suffix for path in cache.iterdir()] == [".tmp"]
    train, val = prepare(load_corpus(str(text)), BYTES, cache)
    assert train.num_bytes + val.num_bytes == len(POEM) * 10


def test_two_encodes_at_once_do_not_harm_each_other(tmp_path):
    text, cache = write(tmp_path / "a.txt", POEM * 10), tmp_path / "cache"
    processes = [encoder(text, cache, tmp_path / "go") for _ in range(2)]
    wait_for(lambda: len(list(cache.glob("*.tmp"))) == 2)
    (tmp_path / "go").touch()
    results = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert results == [f"{len(POEM) * 9 + 2}\n"] * 2
    assert [path.suffix for path in cache.iterdir()] == [""]


# ---- batches ----


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
    corpus = load_corpus("tales", num_stories=50)
    tokenizer = train_tokenizer("bpe", corpus.train(), 600)
    train, val = prepare(corpus, tokenizer, tmp_path)
    x, _ = Batches(train, batch_size=4, seq_len=64)[0]
    assert any(tokenizer.decode(x[0].tolist())[:30] in text for text in corpus.train())
    counted = sum((y != -100).sum().item() for _, y in eval_batches(val, 4, 64))
    assert counted == val.num_tokens - 1
