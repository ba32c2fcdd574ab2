"""Corpora: what is named is what is read, from every kind of file; each document is in one part."""

import gzip
import json
import re
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import tales
from config import DataConfig, from_dict
from corpora import chunks, files, hub, kinds, tables
from corpora.chunks import Chunk, sample_documents, split_documents
from corpora.corpus import VAL_SEED, load_corpus
from corpora.kinds import Corpus
from presets import load_preset

ROOT = Path(kinds.__file__).parent.parent
DOCUMENTS = [f"story {number}\nof é and more" for number in range(30)]


@pytest.fixture
def load(tmp_path):
    """load_corpus with the cache in the test's folder."""
    def load(*names: Any, **flags: Any) -> Corpus:
        return load_corpus(DataConfig(name=tuple(map(str, names)), cache_dir=str(tmp_path / "cache"), **flags))
    return load


def write(path: Path, content: str | bytes) -> Path:
    """A file, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)(content)
    path.write_bytes(packed)
    return path


def table(kind: str, texts: list[str], column: str = "text") -> bytes:
    """A file's bytes: these texts in a column, beside a column of numbers."""
    numbers = list(range(len(texts)))
    if kind == "parquet":
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"id": numbers, column: texts}), sink)
        return sink.getvalue().to_pybytes()
    if kind == "csv":
        return "".join([f"id,{column}\n", *(f'{n},"{text}"\n' for n, text in enumerate(texts))]).encode()
    return "".join(json.dumps({"id": n, column: text}) + "\n" for n, text in enumerate(texts)).encode()


def both(corpus: Corpus) -> list[str]:
    """All documents, in order."""
    return [chunk.text for chunk in corpus.chunks()]


# ---- text files ----


def test_several_documents_are_split_whole_and_the_last_ones_validate(tmp_path, load):
    documents = [f"tale {n}\r\n" for n in range(20)]
    corpus = load(write(tmp_path / "a.txt", "|".join(documents)), separator="|")
    assert list(corpus.train()) == documents[:18]
    assert list(corpus.val()) == documents[18:]


def test_one_document_is_split_by_position(tmp_path, load):
    corpus = load(write(tmp_path / "a.txt", "é" * 70 + "z" * 30), val_ratio=0.3)
    assert list(corpus.train()) == ["é" * 70]
    assert list(corpus.val()) == ["z" * 30]


def test_a_folder_and_a_glob_are_a_document_per_file_in_name_order(tmp_path, load):
    for name in ["b.txt", "a.txt.gz", "deep/c.txt.zst", "deep/d.md"]:
        write(tmp_path / "texts" / name, name)
    assert both(load(tmp_path / "texts")) == ["a.txt.gz", "b.txt", "deep/c.txt.zst"]
    assert both(load(tmp_path / "texts" / "*" / "*")) == ["deep/c.txt.zst", "deep/d.md"]


def test_blank_documents_are_left_out(tmp_path, load):
    corpus = load(write(tmp_path / "a.txt", "|one| \n|two|three|"), separator="|", val_ratio=0.4)
    assert both(corpus) == ["one", "two", "three"]


@pytest.mark.parametrize("end", [".txt.gz", ".txt.zst"])
def test_compressed_text_one_after_another_is_read_to_its_end(end, tmp_path, load):
    path = write(tmp_path / f"a{end}", "one " * 50)
    path.write_bytes(path.read_bytes() * 2)
    assert "".join(both(load(path))) == "one " * 100


@given(text=st.text("ab \n|é\u3000", max_size=300), block=st.integers(1, 40), size=st.integers(2, 30))
def test_chunks_put_together_are_the_documents(text, block, size):
    blocks = [text[place:place + block] for place in range(0, len(text), block)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_CHARS", size)
        found = list(split_documents(blocks, "||"))
    documents = [""]
    for chunk in found:
        assert chunk.is_first == (documents[-1] == "")
        documents[-1] += chunk.text
        documents += [""] * chunk.is_last
    assert documents[:-1] == text.split("||") and found[-1].is_last


def test_a_long_document_is_read_in_chunks_of_bounded_size(tmp_path, load, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 1000)
    monkeypatch.setattr(files, "BLOCK_BYTES", 1000)
    text = "words of a text\n" * 5000
    found = list(load(write(tmp_path / "a.txt", text), val_ratio=0.01).chunks())
    assert "".join(chunk.text for chunk in found) == text
    assert max(len(chunk.text) for chunk in found) <= 3000
    train = [chunk for chunk in found if chunk.part == "train"]
    assert sum(len(chunk.text) for chunk in train) == round(len(text) * 0.99)
    for part in (train, found[len(train):]):
        assert [chunk.is_first for chunk in part] == [True] + [False] * (len(part) - 1)
        assert [chunk.is_last for chunk in part] == [False] * (len(part) - 1) + [True]


@pytest.mark.parametrize("content", [" " * 9999, "a" + " " * 9999 + "b", " " * 9999 + "b", "|" + "\n " * 4999 + "|a b"],
                         ids=len)
def test_white_space_is_read_in_chunks_of_bounded_size(content, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 100)
    monkeypatch.setattr(chunks, "MAX_BLANK", 1000)
    found = list(split_documents([content[n:n + 50] for n in range(0, len(content), 50)], "|"))
    assert "".join(chunk.text for chunk in found) == content.replace("|", "")
    assert max(len(chunk.text) for chunk in found) < 1050
    whole = list(split_documents([" " * 900], None))
    assert whole == [Chunk(" " * 900)]


def test_the_fingerprint_follows_the_content_and_the_split_and_not_the_path(tmp_path, load):
    first = write(tmp_path / "a" / "first.txt", "one|two|three")
    moved = write(tmp_path / "b" / "moved.txt", "one|two|three")
    other = write(tmp_path / "c" / "other.txt", "one|two|four")
    base = load(first, separator="|").fingerprint
    assert load(moved, separator="|").fingerprint == base
    others = [load(other, separator="|"), load(first, separator="o"), load(first, separator="|", val_ratio=0.6),
              load(first, separator="|", max_documents=2), load(first, separator="|", sample_ratio=0.99)]
    assert len({base, *(corpus.fingerprint for corpus in others)}) == 6


@pytest.mark.parametrize(("content", "flags", "message"), [
    (b"", {}, "data.name=.* has no text"),
    (b" \n\n", {}, "data.name=.* has no text"),
    (b"Once \xff", {}, r"is not UTF-8 text \(byte 5\)"),
    (b"Once \xe2\x82", {}, r"is not UTF-8 text \(byte 5\)"),
    (b"a|\xc3|b", {"separator": "|"}, r"is not UTF-8 text \(byte 2\)"),
    (b"Once", {"val_ratio": 0.01}, "data.val_ratio=0.01 .* part empty"),
    (b"one two", {"separator": "|"}, r"data.separator='\|' is not in"),
    (b"one|two", {"separator": "|", "sample_ratio": 1e-9}, "data.sample_ratio=1e-09 leaves no document"),
    (b"one two", {"column": "words"}, "data.column='words' would change nothing for"),
    (b"one two", {"streaming": True}, "data.streaming=True would change nothing for"),
    (b"one two", {"subset": "en"}, "data.subset='en' would change nothing for"),
])
def test_text_that_cannot_be_used_is_one_clear_sentence(content, flags, message, tmp_path, load, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 3)
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "a.txt", content), **flags)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed_text_is_read_in_small_blocks_however_well_it_packs(end, tmp_path):
    content = b"The fox ran. " * 1_000_000
    path = write(tmp_path / f"a.txt{end}", content)
    with open(path, "rb") as file:
        blocks = list(files.byte_blocks(file, path))
    assert b"".join(blocks) == content and max(map(len, blocks)) <= files.BLOCK_BYTES < path.stat().st_size * 1000


def test_reading_compressed_text_says_nothing(tmp_path, load, capfd):
    path = write(tmp_path / "a.txt.zst", "one " * 50)
    assert "".join(both(load(path))) == "one " * 50
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cannot be decompressed"):
        load(path)
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: b"no" + packed], ids=["cut", "spoilt"])
def test_damaged_compressed_text_is_refused(end, damage, tmp_path, load):
    path = write(tmp_path / f"a.txt{end}", "".join(map(str, range(9999))))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="cannot be decompressed .*: compress it again"):
        load(path)


@pytest.mark.parametrize("name", ["nowhere.txt", "*.nothing", ".", "texts/nowhere.txt"])
def test_a_missing_file_names_the_path_and_the_known_corpora(name, tmp_path, monkeypatch, load):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data.name='.*' is not a text file.* tales"):
        load(name)


# ---- read once ----


def test_a_file_is_read_through_once_until_it_changes(tmp_path, load, monkeypatch):
    monkeypatch.setattr(files, "MIN_AGE_NS", 0)
    read = []
    monkeypatch.setattr(kinds, "scan", lambda path, separator: read.append(path) or files.scan(path, separator))
    path = write(tmp_path / "a.txt", "one|two|three")
    prints = [load(path, separator="|").fingerprint for _ in range(3)]
    assert len(read) == 1 and len(set(prints)) == 1
    write(path, "one|two|thr33")
    assert load(path, separator="|").fingerprint not in prints
    assert len(read) == 2


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, load, monkeypatch):
    path, now = write(tmp_path / "a.txt", "one|two|three"), time.time_ns()
    monkeypatch.setattr(files, "state_of", lambda path: (13, now, now, 1))  # a clock of coarse ticks
    before = load(path, separator="|").fingerprint
    write(path, "one|two|thr33")
    assert load(path, separator="|").fingerprint != before


def test_a_file_that_changes_after_it_was_looked_at_is_refused(tmp_path, load):
    path = write(tmp_path / "a.txt", "one|two|three")
    corpus = load(path, separator="|")
    write(path, "one|two|three|four")
    with pytest.raises(ValueError, match=f"{path} has changed while it was read"):
        both(corpus)


# ---- tales ----


def test_tales_validate_on_other_stories_that_no_seed_changes(load):
    parts = [load("tales", num_stories=40, val_ratio=0.2, seed=seed) for seed in (0, 1)]
    train, val = list(parts[0].train()), list(parts[0].val())
    assert (len(train), len(val)) == (40, 8)
    assert not set(train) & set(val)
    assert train == [story.text for story in islice(tales.stories(0), 40)]
    assert list(parts[1].val()) == val
    assert not set(parts[1].train()) & set(train)
    assert parts[0].fingerprint != parts[1].fingerprint


def own_imports(path: Path) -> set[str]:
    """A file of the tales' folder, and all files of it that it imports."""
    imported = re.findall(r"^from tales\.(\w+)", path.read_text(), re.MULTILINE)
    return {path.name}.union(*(own_imports(path.with_name(f"{module}.py")) for module in imported))


def test_the_fingerprint_of_tales_covers_every_file_that_writes_them():
    assert own_imports(ROOT / "tales" / "stories.py") == {path.name for path in tales.SOURCES}


def test_the_bits_of_tales_are_those_of_their_stories(load):
    found = [(chunk.text, chunk.bits) for chunk in load("tales", num_stories=30, val_ratio=0.2).chunks()]
    streams = [*islice(tales.stories(0), 30), *islice(tales.stories(VAL_SEED), 6)]
    assert found == [(story.text, story.bits) for story in streams]


def test_no_more_than_a_thousand_stories_validate(load):
    assert load("tales", num_stories=1_000_000).total == 1_001_000


# ---- tables ----


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_of_any_kind_gives_its_column(kind, packed, tmp_path, load):
    path = write(tmp_path / f"a.{kind}{packed}", table(kind, DOCUMENTS, "tweet"))
    corpus = load(path, column="tweet")
    assert both(corpus) == DOCUMENTS
    assert list(corpus.val()) == DOCUMENTS[4::10]  # evenly spread, one in ten


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_missing_column_names_those_there_are(kind, tmp_path, load):
    path = write(tmp_path / f"a.{kind}", table(kind, DOCUMENTS, "tweet"))
    with pytest.raises(ValueError, match=f"^data.column=text is not a column of '{path}': use one of id, tweet$"):
        load(path)
    with pytest.raises(ValueError, match="^data.column=id holds int64, not text, in .*: use one of id, tweet$"):
        load(path, column="id")


@pytest.mark.parametrize(("kind", "message"), [
    ("jsonl", r"data.name=.* cannot be read as json \(Couldn't cast id: int64 words: string"),
    ("parquet", "data.column=text is not a column of .*: use one of id, words$")])
def test_a_later_file_without_the_column_is_refused(kind, message, tmp_path, load):
    write(tmp_path / f"a.{kind}", table(kind, DOCUMENTS))
    write(tmp_path / f"b.{kind}", table(kind, DOCUMENTS, "words"))
    with pytest.raises(ValueError, match=message):
        both(load(tmp_path / f"*.{kind}"))


def test_a_parquet_file_of_one_group_of_rows_is_read_in_bounded_memory(tmp_path, load):
    path = write(tmp_path / "a.parquet", table("parquet", [f"{number} " * 500 for number in range(10_000)]))
    before, most, num_chars = pyarrow.total_allocated_bytes(), 0, 0
    for chunk in load(path).chunks():
        num_chars += len(chunk.text)
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert num_chars > 15_000_000 > 2 * most


def test_cells_of_a_csv_are_text_as_it_stands(tmp_path, load):
    texts = ["a word", "NA", "007", "", "1e5", "null"]
    assert both(load(write(tmp_path / "a.csv", table("csv", texts)))) == ["a word", "NA", "007", "1e5", "null"]


def rows_file(path: Path, rows: list[Any]) -> Path:
    """A file of rows, each a dictionary: .jsonl or .parquet."""
    if path.suffix == ".jsonl":
        return write(path, "".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_inside_a_column_is_read(kind, tmp_path, load):
    rows = [{"id": n, "data": {"meta": {"body": text, "n": 1}}} for n, text in enumerate(DOCUMENTS)]
    path = rows_file(tmp_path / f"a.{kind}", [{"id": -1, "data": None}, {"id": -2, "data": {"meta": None}}, *rows])
    corpus = load(path, column="data.meta.body")
    assert both(corpus) == DOCUMENTS
    assert corpus.left_out == {"without it or null": 2}
    for column, problem in (("data.body", "is not a column of"), ("data.meta", "holds .*, not text, in"),
                            ("data", "holds .*, not text, in"), ("data.meta.n", "holds int64, not text, in"),
                            ("data.meta.body.x", "is not a column of"), ("body", "is not a column of")):
        with pytest.raises(ValueError, match=f"^data.column={column} {problem} .*: use one of .*data.meta.body"):
            load(path, column=column)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_dot_may_be_a_part_of_a_columns_name(kind, tmp_path, load):
    path = write(tmp_path / f"a.{kind}", table(kind, DOCUMENTS, "data.body"))
    assert both(load(path, column="data.body")) == DOCUMENTS


@pytest.mark.parametrize(("role", "content"), [("role", "content"), ("from", "value")])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_chat_is_its_messages_with_a_blank_line_between(kind, role, content, tmp_path, load):
    chat = [{role: "user", content: "Once?\nTwice?"}, {role: "assistant", content: "Upon."}]
    path = rows_file(tmp_path / f"a.{kind}", [
        {"messages": chat}, {"messages": []}, {"messages": [{role: "user", content: None}]}, {"messages": chat[:1]}])
    corpus = load(path, column="messages", val_ratio=0.5)
    assert both(corpus) == ["user: Once?\nTwice?\n\nassistant: Upon.", "user: Once?\nTwice?"]
    assert corpus.left_out == {"blank": 1, "not text": 1}


def test_rows_without_text_are_counted_by_their_reason(tmp_path, load):
    rows = [{"text": "one"}, {"text": None}, {"n": 1}, {"text": " \n"}, {"text": ""}, {"text": 5}, {"text": {"a": "b"}},
            {"text": ["x"]}, {"text": "two"}, {"text": [{"role": "user", "content": "three"}]}]
    corpus = load(rows_file(tmp_path / "a.jsonl", rows))
    for _ in range(2):
        assert both(corpus) == ["one", "two", "user: three"]
        assert corpus.left_out == {"without it or null": 2, "blank": 2, "not text": 3}
    nested = load(rows_file(tmp_path / "b.jsonl", [{"a": {"b": "one"}}, {"a": 5}, {"a": {"c": 1}}, {"a": {"b": 1}}]),
                  column="a.b")
    assert both(nested) == ["one"] and nested.left_out == {"without it or null": 2, "not text": 1}
    cells = load(write(tmp_path / "c.csv", table("csv", ["one", "", " ", "two"])))
    assert both(cells) == ["one", "two"] and cells.left_out == {"blank": 2}


def test_what_was_left_out_is_said_once_on_stderr_and_kept(tmp_path, capsys):
    import torch
    from rich.console import Console

    from training.setup import prepare_run

    texts = [*DOCUMENTS, None, " ", ""] * 3
    path = rows_file(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    cfg = from_dict({"data": {"name": [str(path)], "cache_dir": str(tmp_path / "cache")}, "tokenizer": {"kind": "byte"},
                     "model": {"max_seq_len": 16}, "train": {"steps": 1}})
    for console, said in ((Console(), 1), (Console(), 1), (None, 0)):  # encoded, from the cache, for a plan
        setup = prepare_run(cfg, torch.device("cpu"), console=console)
        printed = capsys.readouterr()
        sentence = f"data.name={path} (9 rows are left out: 6 blank, 3 without it or null)\n"
        assert (printed.out, printed.err) == ("", sentence * said)
        assert setup.describe_data()["rows_left_out"] == {"blank": 6, "without it or null": 3}
    empty = rows_file(tmp_path / "b.jsonl", [{"text": " "}, {"text": None}])
    cfg = from_dict({"data": {"name": [str(empty)], "cache_dir": str(tmp_path)}, "tokenizer": {"kind": "byte"}})
    with pytest.raises(ValueError, match=r"train part empty \(2 rows are left out: 1 blank, 1 without it or null\)"):
        prepare_run(cfg, torch.device("cpu"))


def test_tables_in_a_folder_or_a_glob_are_read_in_name_order(tmp_path, load):
    for number, name in enumerate(["b.jsonl.zst", "a.jsonl", "deep/c.jsonl.gz"]):
        write(tmp_path / "rows" / name, table("jsonl", [f"{number} {text}" for text in "xyz"]))
    expected = [f"{number} {text}" for number in (1, 0, 2) for text in "xyz"]
    assert both(load(tmp_path / "rows")) == expected
    assert both(load(tmp_path / "rows" / "*.jsonl*")) == expected[:6]


def test_a_folder_laid_out_like_a_dataset_of_the_hub_is_read_by_its_card(tmp_path, load):
    folder = tmp_path / "copy"
    card = {"configs": [{"config_name": "en", "sep": ";", "data_files": [{"split": "train", "path": "english.csv"},
                                                                         {"split": "test", "path": "more.csv"}]},
                        {"config_name": "fr", "data_files": "french.csv"}]}
    write(folder / "README.md", f"---\n{json.dumps(card)}\n---\n")
    for name, word in (("english", "word"), ("more", "further word"), ("french", "mot")):
        write(folder / f"{name}.csv", f"n;text\n1;{word} 1\n2;{word} 2\n")
    write(folder / "notes.txt", "not a row")
    assert both(load(folder, subset="en")) == ["word 1", "word 2"]
    assert both(load(f"{folder}:test", subset="en")) == ["further word 1", "further word 2"]
    for flags, message in [({}, "data.subset=None is none of .*: use one of en, fr$"),
                           ({"subset": "de"}, "data.subset=de is none of .*: use one of en, fr$")]:
        with pytest.raises(ValueError, match=message):
            load(folder, **flags)
    with pytest.raises(ValueError, match=f"data.name='{folder}:val' has no split val: use one of {folder}:train, "):
        load(f"{folder}:val", subset="en")


@pytest.mark.parametrize("place", ["../secret.jsonl", "/etc/passwd", "https://example.invalid/a.jsonl",
                                   {"train": ["a.jsonl", "deep/../../secret.jsonl"]}, "hf://datasets/a/b/c.jsonl"])
def test_a_card_that_names_files_elsewhere_is_refused(place, tmp_path, load):
    write(tmp_path / "secret.jsonl", table("jsonl", ["secret"]))
    write(tmp_path / "copy" / "a.jsonl", table("jsonl", DOCUMENTS))
    configs = [{"config_name": "x", "sep": "/", "data_files": place}]
    write(tmp_path / "copy" / "README.md", f"---\nconfigs: {json.dumps(configs)}\n---\n")
    with pytest.raises(ValueError, match="^data.name='.*copy': its README.md names .*, which is not in the folder:"):
        load(tmp_path / "copy")


@pytest.mark.parametrize("head", ["configs: [", "x: !!python/object/apply:os.system ['true']", "- a", "[" * 9999],
                         ids=len)
def test_a_card_that_cannot_be_read_is_one_clear_sentence(head, tmp_path, load):
    write(tmp_path / "copy" / "a.jsonl", table("jsonl", DOCUMENTS))
    write(tmp_path / "copy" / "README.md", f"---\n{head}\n---\n")
    with pytest.raises(ValueError, match="^data.name='.*copy': its README.md cannot be read ") as error:
        load(tmp_path / "copy")
    assert "\n" not in str(error.value)


def test_a_program_beside_the_rows_is_never_run(tmp_path, load):
    folder = tmp_path / "copy"
    write(folder / "README.md", "---\nlicense: mit\n---\n")
    write(folder / "a.jsonl", table("jsonl", DOCUMENTS))
    for name in ("dataset.py", "__init__.py", "json.py"):
        write(folder / name, f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert both(load(folder)) == DOCUMENTS
    (folder / "json.py").rename(folder / "copy.py")  # the name of a dataset's program
    with pytest.raises(ValueError, match=f"^data.name='{folder}' cannot be read .*scripts are no longer supported"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("files", "message"), [
    ({"a.jsonl": b'{"text": "x"}\n{"text": oops\n'}, "cannot be read as json .*Invalid value"),
    ({"a.parquet": b"PAR1 not quite"}, "cannot be read as parquet"),
    ({"a.csv": b""}, "cannot be read as csv"),
    ({"a.jsonl": b""}, "has no text: give a file with at least one row"),
    ({"a.jsonl": table("jsonl", ["x"]), "b.txt": b"y"}, "has b.txt and a.jsonl, of different kinds"),
], ids=str)
def test_a_table_that_cannot_be_used_is_one_clear_sentence(files, message, tmp_path, load):
    for name, content in files.items():
        write(tmp_path / "rows" / name, content)
    with pytest.raises(ValueError, match=f"^data.name='.*' {message}") as error:
        load(tmp_path / "rows")
        both(load(tmp_path / "rows"))
    assert "\n" not in str(error.value)


def test_a_glob_of_several_kinds_is_refused(tmp_path, load):
    for kind in ("jsonl", "csv"):
        write(tmp_path / f"a.{kind}", table(kind, DOCUMENTS))
    with pytest.raises(ValueError, match=r"has files of several kinds \(csv, json\): give a glob of one kind"):
        load(tmp_path / "a.*")


def test_nothing_is_written_outside_the_cache(tmp_path, load, monkeypatch):
    from datasets import config

    elsewhere = tmp_path / "home"
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", elsewhere)
    monkeypatch.setattr(config, "DOWNLOADED_DATASETS_PATH", str(elsewhere))
    both(load(write(tmp_path / "a.parquet.gz", table("parquet", DOCUMENTS))))
    assert not elsewhere.exists() and (tmp_path / "cache" / "unpacked").exists()


# ---- what a vocabulary learns from ----


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_a_small_vocabulary_has_the_characters_of_the_held_out_part(kind, tmp_path, load):
    from config import TokenizerConfig
    from training.setup import choose_tokenizer

    stories = "".join(story.text for story in islice(tales.stories(0), 50))
    corpus = load(write(tmp_path / "a.txt", stories + " 5 \u00a7 6\t7"))
    tokenizer = choose_tokenizer(TokenizerConfig(kind=kind, vocab_size=None if kind == "char" else 200),
                                 DataConfig(name=("a.txt",)), corpus)
    assert "\u00a7" not in "".join(corpus.train())
    for text in both(corpus):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_table_that_is_unpacked_onto_a_full_disk_is_one_sentence(tmp_path, load, monkeypatch):
    monkeypatch.setattr(tables, "open", lambda path, mode, **flags: open(  # noqa: SIM115
        path if mode == "rb" else "/dev/full", mode, **flags), raising=False)
    with pytest.raises(ValueError, match="unpacked/.* cannot be written .No space left on device.: make room"):
        load(write(tmp_path / "a.parquet.gz", table("parquet", DOCUMENTS)))


# ---- shares ----


def test_a_sample_is_a_share_drawn_by_the_seed_alone(tmp_path, load):
    texts = [f"{number}" for number in range(6000)]
    kept = {}
    for kind, flags in (("txt", {"separator": "|"}), ("jsonl", {})):
        content = "|".join(texts) if kind == "txt" else table(kind, texts)
        path = write(tmp_path / f"a.{kind}", content)
        kept[kind] = [both(load(path, sample_ratio=0.25, seed=seed, **flags)) for seed in (0, 0, 1)]
    first, again, other = kept["txt"]
    assert first == again == kept["jsonl"][0] != other
    assert abs(len(first) / 6000 - 0.25) < 0.02
    assert sorted(first, key=int) == first


def test_a_sample_keeps_documents_whole():
    stream = [Chunk("", is_first, is_last) for is_first, is_last in [(True, False), (False, True)] * 9000]
    kept = list(sample_documents(stream, 0.5, 0))
    assert kept[::2] == [Chunk("", True, False)] * (len(kept) // 2)
    assert kept[1::2] == [Chunk("", False, True)] * (len(kept) // 2)


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_at_most_so_many_documents_are_used(kind, tmp_path, load):
    content = "|".join(DOCUMENTS) if kind == "txt" else table(kind, DOCUMENTS)
    flags = {"separator": "|"} if kind == "txt" else {}
    assert both(load(write(tmp_path / f"a.{kind}", content), max_documents=10, **flags)) == DOCUMENTS[:10]


def test_a_mixture_has_the_parts_of_all_its_sources(tmp_path, load):
    text = write(tmp_path / "a.txt", "|".join(DOCUMENTS))
    rows = write(tmp_path / "b.jsonl", table("jsonl", DOCUMENTS))
    corpus = load(text, rows, "tales", weights=(3, 1, 1), separator="|", num_stories=10)
    parts = [load(text, separator="|"), load(rows), load("tales", num_stories=10)]
    assert [source.fingerprint for source in corpus.sources] == [part.fingerprint for part in parts]
    assert list(corpus.train()) == [text for part in parts for text in part.train()]
    assert list(corpus.val()) == [text for part in parts for text in part.val()]
    assert corpus.weights == (3, 1, 1) and corpus.name == f"{text} {rows} tales"
    assert corpus.fingerprint != load(text, rows, "tales", separator="|", num_stories=10).fingerprint


def test_validation_files_leave_all_the_rest_for_training(tmp_path, load):
    text, other = write(tmp_path / "a.txt", "|".join(DOCUMENTS)), write(tmp_path / "b.txt", "x|y")
    corpus = load(text, val_name=(str(other), "tales"), separator="|", num_stories=50)
    assert list(corpus.train()) == DOCUMENTS
    assert list(corpus.val()) == ["x", "y", *(story.text for story in islice(tales.stories(VAL_SEED), 5))]


# ---- what DataConfig refuses ----


@pytest.mark.parametrize(("flags", "message"), [
    ({"weights": (1.0,)}, "data.weights=.* would change nothing: it acts only when data.name has several texts"),
    ({"name": ("a", "b"), "weights": (1.0,)}, "data.weights=1.0 must be one for each data.name: give 2, or none"),
    ({"name": ("a", "b"), "weights": (1.0, 0.0)}, "data.weights=1.0 0.0 must all be above 0"),
    ({"name": ("a", "a")}, "data.name=a a has a twice"),
    ({"name": "a", "val_name": "a"}, "data.name=a a has a twice"),
    ({"name": ("a", " ")}, "data.name='a  ' has an empty name: leave it out"),
    ({"name": "a", "val_name": ""}, "data.val_name='' has an empty name: leave it out"),
    ({"name": ()}, r"data.name=\(\) names no text"),
    ({"val_name": "b", "val_ratio": 0.2}, "data.val_ratio=0.2 would change nothing"),
    ({"name": "a", "num_stories": 9}, "data.num_stories=9 would change nothing: it acts only when a text is tales"),
    ({"name": "a", "seed": 1}, "data.seed=1 would change nothing"),
    ({"seed": -1}, "data.seed=-1 is below 0"),
    ({"sample_ratio": 0.5},
     "data.sample_ratio=0.5 would change nothing: it acts only when a text is neither tales nor"),
    ({"name": "a", "sample_ratio": 1.5}, "data.sample_ratio=1.5 must lie between 0 and 1"),
    ({"name": "a", "max_documents": 0}, "data.max_documents=0 must be above 0"),
    ({"workers": 0}, "data.workers=0 must be above 0"),
], ids=str)
def test_flags_that_cannot_be_or_change_nothing_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        from_dict({"data": flags})


def test_a_plain_name_of_an_older_run_is_one_name():
    assert from_dict({"data": {"name": "my.txt"}}) == from_dict({"data": {"name": ["my.txt"]}})


# ---- the Hub ----

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as a download asks for, over files of the test; notes what was asked."""

    def __init__(self, *args: Any, files: dict[str, bytes], asked: list[str]):
        self.files, self.asked = files, asked
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def entries(self, folder: str) -> list[dict[str, Any]]:
        """The files and folders right below a folder."""
        prefix, found = f"{folder}/" if folder else "", {}
        for path, content in self.files.items():
            if path.startswith(prefix):
                name, deeper, _ = path.removeprefix(prefix).partition("/")
                found[name] = {"type": "directory" if deeper else "file", "path": prefix + name, "oid": f"oid{name}",
                               "size": 0 if deeper else len(content)}
        return list(found.values())

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if not re.match(r"(/api)?/datasets/(some/tweets|roneneldan/TinyStories)\b", path):
            return self.answer(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository Not Found")
        if found := re.search(r"/resolve/[^/]+/(.*)", path):
            if found[1] not in self.files:
                return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return self.answer(200, self.files[found[1]], ETag=f'"{hash(found[1]):x}"', X_Repo_Commit=COMMIT)
        if found := re.search(r"/tree/[^/]+/?(.*)", path):
            entries = self.entries(found[1])
            missing = {} if entries else {"X_Error_Code": "EntryNotFound"}
            return self.answer(200 if entries else 404, json.dumps(entries).encode(), **missing)
        info = {"id": "some/tweets", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files],
                "tags": [], "downloads": 0, "private": False}
        return self.answer(200, json.dumps(info).encode())

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()


@pytest.fixture
def online(monkeypatch):
    """Makes a hub on this machine of the given files; returns the list of what was asked of it."""
    servers = []

    def go_online(files: dict[str, bytes]) -> list[str]:
        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files=files, asked=asked))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        connect_to(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        return asked

    yield go_online
    for server in servers:
        server.shutdown()


def connect_to(monkeypatch, address: str) -> None:
    import datasets.config
    from huggingface_hub import HfFileSystem, constants

    HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)


TWEETS = {"README.md": b"---\nlicense: mit\n---\n",
          "data/train-00000-of-00001.parquet": table("parquet", DOCUMENTS, "tweet"),
          "data/test-00000-of-00001.parquet": table("parquet", ["x", "y"], "tweet")}


@pytest.mark.parametrize("flags", [{}, {"streaming": True}], ids=str)
def test_a_dataset_of_the_hub_is_read_and_its_fingerprint_is_its_commit(online, load, flags, tmp_path):
    online(TWEETS)
    with pytest.raises(ValueError, match="data.column=text is not a column of 'some/tweets': use one of id, tweet"):
        load("some/tweets", **flags)
    corpus = load("some/tweets", column="tweet", **flags)
    assert both(corpus) == DOCUMENTS
    assert both(load("some/tweets:test", column="tweet", **flags)) == ["x", "y"]
    assert corpus.fingerprint != load("some/tweets", column="tweet", sample_ratio=0.5).fingerprint
    assert len({load("some/tweets", column="tweet", streaming=s).fingerprint for s in (False, True)}) == 1
    assert bool(list((tmp_path / "cache").rglob("train*.parquet"))) or flags


def test_what_was_downloaded_needs_no_network_again(online, load, monkeypatch, tmp_path):
    asked = online(TWEETS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home"))
    first = load("some/tweets", column="tweet")
    asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = load("some/tweets", column="tweet")
    assert both(again) == both(first) and again.fingerprint == first.fingerprint
    assert not asked and not (tmp_path / "home").exists()


def test_the_second_tinystories_are_read_between_their_marks(online, load):
    online({"TinyStoriesV2-GPT4-train.txt": b"one\n<|endoftext|>\ntwo\n", "TinyStoriesV2-GPT4-valid.txt": b"last\n"})
    assert both(load("tinystories-v2")) == ["one\n", "\ntwo\n"]
    assert list(load("tinystories-v2", val_name="tales").train()) == ["one\n", "\ntwo\n"]


@pytest.mark.parametrize(("name", "message"), [
    ("nobody/nothing", "is not a file or folder here, and the Hub has no such dataset, or not for you"),
    ("some/tweets:val", "has no split val: use one of some/tweets:train, some/tweets:test"),
])
def test_what_the_hub_has_not_is_said(name, message, online, load):
    online(TWEETS)
    with pytest.raises(ValueError, match=f"^data.name='{name}' {message}"):
        load(name)


def test_a_dataset_that_is_a_program_is_never_run(online, load, tmp_path):
    online({"tweets.py": f"open({str(tmp_path / 'ran')!r}, 'w')".encode()})
    with pytest.raises(ValueError, match="data.name='some/tweets' cannot be used .*scripts are no longer supported"):
        load("some/tweets")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "command", "given"), [
    ("some/tweets", "hf download some/tweets --repo-type", "data.name=FOLDER"),
    ("fineweb-edu", "hf download HuggingFaceFW/fineweb-edu --include 'sample/10BT/*' --repo-type", "data.name=FOLDER"),
    ("tinystories-v2", "hf download roneneldan/TinyStories TinyStoriesV2-GPT4-train.txt --repo-type",
     "data.name=FOLDER/TinyStoriesV2-GPT4-train.txt and data.separator='<|endoftext|>'"),
])
def test_offline_a_name_of_the_hub_says_how_to_get_the_files(name, command, given, load):
    with pytest.raises(ValueError, match="the Hub cannot be reached") as error:
        load(name)
    assert command in str(error.value) and str(error.value).endswith(f"give {given}")


def test_a_preset_names_its_own_dataset_and_its_column_is_known():
    assert load_preset("babyjoey").data.name == ("SouthernCrossAI/Tweets_cricket",)
    assert hub.COLUMNS["SouthernCrossAI/Tweets_cricket"] == "tweet"
