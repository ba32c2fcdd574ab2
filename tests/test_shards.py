"""Shards: encoded once, whole or not at all, the same from any number of processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import tales
from config import DataConfig
from corpora import chunks, encoder, shards
from corpora.corpus import load_corpus
from corpora.kinds import Corpus
from corpora.shards import JoinedTokens, TokenFile, prepare
from tokenizer import ByteTokenizer, load_tokenizer, train_tokenizer

ROOT = Path(shards.__file__).parent.parent
BYTES = ByteTokenizer()
POEM = "Tiger, tiger, burning bright\nIn the forests of the night,\nWhat immortal hand or eye\n"


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def load(*names: str | Path, cache: Path, **flags: Any) -> Corpus:
    return load_corpus(DataConfig(name=tuple(map(str, names)), cache_dir=str(cache), **flags))


def corpus_of(folder: Path, documents: list[str], **flags: Any) -> Corpus:
    path = write(folder / "text.txt", "|".join(documents))
    return load(path, cache=folder / "cache", separator="|", **flags)


def parts_of(corpus: Corpus, tokenizer: Any, cache: Path, **settings: Any) -> tuple[TokenFile, TokenFile]:
    """Both parts of a corpus that is no mixture."""
    [(train, weight)], val = prepare(corpus, tokenizer, cache, **settings)
    assert weight == 1
    return train, val


# ---- what is on disk ----


def test_every_document_is_on_disk_between_bos_and_eos(tmp_path):
    documents = [f"{n} é\n" * (n + 1) for n in range(10)]
    parts = parts_of(corpus_of(tmp_path, documents, val_ratio=0.3), BYTES, tmp_path / "cache")
    for part, expected in zip(parts, (documents[:7], documents[7:]), strict=True):
        assert isinstance(part.tokens, np.memmap) and part.tokens.dtype == np.uint16
        found = np.split(part.tokens, part.document_starts[1:])
        assert [BYTES.decode(ids) for ids in found] == expected
        assert {(ids[0], ids[-1]) for ids in found} == {(BYTES.bos_id, BYTES.eos_id)}
        num_bytes = len("".join(expected).encode())
        assert part.num_bytes == num_bytes == BYTES.byte_lengths[part.tokens].sum()
        assert (part.num_documents, part.num_tokens) == (len(expected), num_bytes + 2 * len(found))
        assert part.bits is None


def test_the_bits_of_both_parts_are_kept(tmp_path):
    train, val = parts_of(load("tales", cache=tmp_path, num_stories=20), BYTES, tmp_path)
    assert train.bits == pytest.approx(sum(tales.story(0, n).bits for n in range(20)))
    assert val.bits == pytest.approx(sum(tales.story(-1, n).bits for n in range(2)))


@pytest.mark.parametrize(("kind", "size"), [("char", None), ("bpe", 39), ("unigram", 39), ("hf_bpe", 320)])
@pytest.mark.parametrize("ratio", [0.05, 0.5])
def test_long_documents_encoded_in_chunks_give_the_same_ids(kind, size, ratio, tmp_path, monkeypatch):
    text = POEM * 30 + "without a newline " * 20
    tokenizer = train_tokenizer(kind, [text], size)
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 70)
    corpus = load(write(tmp_path / "a.txt", text), cache=tmp_path / "cache", val_ratio=ratio)
    assert sum(1 for _ in corpus.chunks()) > 20
    train, val = parts_of(corpus, tokenizer, tmp_path / "cache")
    for part, texts in ((train, corpus.train()), (val, corpus.val())):
        assert part.tokens.tolist() == tokenizer.encode("".join(texts), bos=True, eos=True)
        assert part.document_starts.tolist() == [0]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "hf_bpe"])
@pytest.mark.parametrize("text", ["tigerburning" * 300, "burning, " * 300, "\u4f60\u597d\u3002" * 300], ids=len)
def test_a_document_is_cut_only_where_its_ids_stay(kind, text, tmp_path, monkeypatch):
    """Also without a place to cut in many chunks; only MAX_UNCUT characters without one end the search."""
    tokenizer = train_tokenizer(kind, [*(tales.story(0, n).text for n in range(60)), text], 560)
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 100)
    path = write(tmp_path / "a.txt", text)
    for limit, same in ((10**6, True), (200, " " in text)):
        monkeypatch.setattr(encoder, "MAX_UNCUT", limit)
        train, _ = parts_of(load(path, cache=tmp_path / f"{limit}", val_ratio=0.01), tokenizer, tmp_path / f"{limit}")
        document = text[:round(len(text) * 0.99)]
        assert (train.tokens.tolist() == tokenizer.encode(document, bos=True, eos=True)) >= same
        assert tokenizer.decode(train.tokens) == document
        assert train.document_starts.tolist() == [0]


def test_no_group_is_longer_than_what_may_stay_uncut(tmp_path, monkeypatch):
    seen = []
    for module in (chunks, encoder):
        monkeypatch.setattr(module, "CHUNK_CHARS", 100)
    monkeypatch.setattr(encoder, "MAX_UNCUT", 1000)
    monkeypatch.setattr(ByteTokenizer, "cuts", None)
    monkeypatch.setattr(encoder, "encode_group", lambda tokenizer, group, work=encoder.encode_group:
                        seen.append(sum(len(chunk.text) for chunk in group)) or work(tokenizer, group))
    parts_of(load(write(tmp_path / "a.txt", "x" * 99_999), cache=tmp_path / "cache"), BYTES, tmp_path, workers=1)
    assert 900 <= max(seen) < 1300 and sum(seen) == 99_999


def test_ids_beyond_16_bits_are_kept(tmp_path):
    class Wide(ByteTokenizer):
        vocab_size = property(lambda self: 70_000, lambda self, size: None)

        def encode_batch(self, texts):
            return [[69_999] for _ in texts]

    train, _ = parts_of(corpus_of(tmp_path, ["a", "b"]), Wide(), tmp_path / "cache")
    assert train.tokens.tolist() == [1, 69_999, 2]


class Unusable(ByteTokenizer):
    def encode_batch(self, texts):
        raise RuntimeError("encoded")


def test_the_second_time_nothing_is_encoded(tmp_path):
    corpus = corpus_of(tmp_path, ["one", "two"])
    first, _ = parts_of(corpus, BYTES, tmp_path / "cache")
    again, _ = parts_of(corpus, Unusable(), tmp_path / "cache")
    assert again.tokens.tolist() == first.tokens.tolist()
    with pytest.raises(RuntimeError, match="encoded"):
        parts_of(corpus_of(tmp_path, ["one", "2"]), Unusable(), tmp_path / "cache")


@pytest.mark.parametrize("file", ["val.bin", "val.starts", "val.json"])
def test_files_cut_short_are_noticed(file, tmp_path):
    parts_of(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / "cache")
    folder, = {path.parent for path in (tmp_path / "cache").glob("*/val.bin")}
    os.truncate(folder / file, (folder / file).stat().st_size - 8)
    with pytest.raises(ValueError, match=f"cache '{folder}' is broken .*: delete it"):
        TokenFile(folder, "val")


@pytest.mark.parametrize("file", ["val.bin", "val.starts"])
def test_a_flipped_bit_is_noticed(file, tmp_path):
    corpus = corpus_of(tmp_path, ["one", "two"])
    parts_of(corpus, BYTES, tmp_path / "cache")
    path, = (tmp_path / "cache").glob(f"*/{file}")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"cache '{path.parent}' is broken \\({file} is not as it was written"):
        parts_of(corpus, BYTES, tmp_path / "cache")


def test_a_table_too_short_for_both_parts_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n')
    with pytest.raises(ValueError, match=f"data.name='{path}' leaves the val part empty: use another data.val_ratio"):
        prepare(load(path, cache=tmp_path), BYTES, tmp_path)


# ---- mixtures ----


def test_a_mixture_keeps_a_file_for_each_source_with_its_weight(tmp_path):
    first, second = write(tmp_path / "a.txt", POEM), write(tmp_path / "b.txt", POEM * 3)
    for weights, expected in [((1.0, 3.0), [0.25, 0.75]), ((), None)]:
        corpus = load(first, second, cache=tmp_path / "cache", weights=weights)
        parts, val = prepare(corpus, BYTES, tmp_path / "cache")
        alone = [parts_of(load(path, cache=tmp_path / "cache"), Unusable(), tmp_path / "cache")
                 for path in (first, second)]
        assert [part.tokens.tolist() for part, _ in parts] == [train.tokens.tolist() for train, _ in alone]
        sizes = [part.num_tokens for part, _ in parts]
        assert [weight for _, weight in parts] == (expected or [size / sum(sizes) for size in sizes])
        joined = np.concatenate([part.tokens for _, part in alone])
        assert val.tokens[np.arange(len(val.tokens))].tolist() == joined.tolist()
        assert val.num_tokens == len(val.tokens) == len(joined)
        assert val.num_bytes == sum(part.num_bytes for _, part in alone)
        assert [int(val.tokens[start]) for start in val.document_starts] == [BYTES.bos_id] * val.num_documents
        assert val.document_starts.tolist() == [0, alone[0][1].num_tokens]
        assert val.bits is None and val.pad_id == BYTES.pad_id


def test_validation_texts_of_their_own_are_encoded_whole(tmp_path):
    path = write(tmp_path / "a.txt", POEM)
    [(train, _)], val = prepare(load(path, cache=tmp_path, val_name="tales", num_stories=30), BYTES, tmp_path)
    assert BYTES.decode(train.tokens) == POEM
    assert BYTES.decode(val.tokens) == "".join(tales.story(-1, n).text for n in range(3))
    assert val.bits == pytest.approx(sum(tales.story(-1, n).bits for n in range(3)))


def test_joined_tokens_are_indexed_like_one_array():
    arrays = [np.arange(5, dtype=np.uint16), np.arange(5, 6, dtype=np.uint16), np.arange(6, 20, dtype=np.uint16)]
    joined, plain = JoinedTokens(arrays), np.arange(20, dtype=np.uint16)
    for where in (0, 19, -1, slice(3, 8), slice(None), slice(None, None, -3), np.array([[4, 5], [19, 0]]), [7, 7]):
        assert np.array_equal(joined[where], plain[where])
        assert np.asarray(joined[where]).dtype == np.uint16
    assert len(joined) == 20
    for where in (20, -21, np.array([3, 20])):
        with pytest.raises(IndexError, match="there are 20 tokens"):
            joined[where]


# ---- several processes ----


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "CHUNK_CHARS", 400)
    monkeypatch.setattr(encoder, "GROUPS_BEFORE_WORKERS", 2)
    monkeypatch.setattr(encoder, "num_cores", lambda: 2)
    corpus, tokenizer = load("tales", cache=tmp_path, num_stories=60), load_tokenizer("tales_512")
    files = []
    for workers in (1, 2, None):
        train, val = parts_of(corpus, tokenizer, tmp_path / str(workers), workers=workers)
        files.append({name.name: name.read_bytes() for name in (tmp_path / str(workers)).glob("*/*")})
    assert files[0] == files[1] == files[2] and len(files[0]) == 6
    assert tokenizer.decode(train.tokens) == "".join(corpus.train())
    assert train.document_starts.tolist() == np.flatnonzero(train.tokens == tokenizer.bos_id).tolist()


def test_a_short_text_needs_no_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "WorkerProcess", None)
    parts_of(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / "cache")


def test_workers_find_packages_where_this_process_finds_them(tmp_path, monkeypatch):
    """Python runs a sitecustomize.py that it finds on its path when it starts."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'was-here')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    prepare(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / "cache", workers=2)
    assert (tmp_path / "was-here").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_encode_leaves_nothing_and_says_what_is_wrong(workers, tmp_path):
    corpus = corpus_of(tmp_path, ["a", "b", "z"])
    with pytest.raises(ValueError, match=r"U\+007A"):
        prepare(corpus, train_tokenizer("char", ["ab"]), tmp_path / "cache", workers=workers)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name != "scans"]


def test_a_process_that_was_killed_is_a_sentence(tmp_path, monkeypatch):
    start = encoder.WorkerProcess.__init__

    def start_and_kill(worker, *settings):
        start(worker, *settings)
        worker.process.kill()

    monkeypatch.setattr(encoder.WorkerProcess, "__init__", start_and_kill)
    with pytest.raises(ValueError, match=r"data.workers: a process that encodes has ended \(status -9\)"):
        prepare(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / "cache", workers=2)


# ---- one at a time, and whole or not at all ----

ENCODER = """
import sys, time
from pathlib import Path
from config import DataConfig
from corpora.corpus import load_corpus
from corpora.shards import prepare
from tokenizer import ByteTokenizer
class Waiting(ByteTokenizer):
    def encode_batch(self, texts):
        while not Path(sys.argv[3]).exists():
            time.sleep(0.02)
        return super().encode_batch(texts)
cache, workers = Path(sys.argv[2]), int(sys.argv[4])
corpus = load_corpus(DataConfig(name=sys.argv[1], cache_dir=str(cache)))
[(train, _)], _ = prepare(corpus, Waiting() if workers == 1 else ByteTokenizer(), cache, workers=workers)
print(train.num_tokens)
"""


@pytest.fixture
def start(tmp_path):
    """Starts processes that encode a text as soon as a signal file is there; none outlives the test."""
    started = []

    def start(text: Path, cache: Path, signal_file: Path, workers: int = 1) -> subprocess.Popen:
        with open(tmp_path / "errors", "a") as errors:
            process = subprocess.Popen([sys.executable, "-c", ENCODER, text, cache, signal_file, str(workers)],
                                       cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
                                       process_group=0)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def folders(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir() if path.name != "scans")


def test_a_killed_encode_is_not_taken_for_a_whole_one_and_is_swept_up(tmp_path, start):
    text, cache = write(tmp_path / "a.txt", POEM * 10), tmp_path / "cache"
    process = start(text, cache, tmp_path / "never")
    wait_for(lambda: list(cache.glob("*.tmp/train.bin")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folders(cache) == [".lock", ".tmp"]
    parts_of(corpus_of(tmp_path, ["other", "texts"]), BYTES, cache)  # of another name
    assert folders(cache) == ["", ".lock"]
    train, val = parts_of(load(text, cache=cache), BYTES, cache)
    assert train.num_bytes + val.num_bytes == len(POEM) * 10


def test_what_others_have_put_into_the_cache_folder_stays(tmp_path):
    """Whatever its name: also in a folder that looks like one of a killed encode, and beside a run in models/."""
    theirs = ["thesis.tmp/ch1", "thesis.lock", f"{'0' * 32}.tmp/train.bin", f".{'0' * 32}.0a1b2c3d.tmp/train.bin",
              ".step_00000002.before.tmp/model.safetensors", ".twin.tmp/config.json", ".notes.0a1b2c3d.tmp"]
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    parts_of(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path)
    assert [(tmp_path / name).read_text() for name in theirs] == ["mine"] * len(theirs)


def test_an_encode_under_way_is_not_swept_up(tmp_path, start):
    text, cache = write(tmp_path / "a.txt", POEM * 10), tmp_path / "cache"
    process = start(text, cache, tmp_path / "go")
    wait_for(lambda: list(cache.glob("*.tmp/train.bin")))
    parts_of(corpus_of(tmp_path, ["other", "texts"]), BYTES, cache)
    (tmp_path / "go").touch()
    assert process.communicate()[0] == f"{len(POEM) * 9 + 2}\n"
    assert folders(cache) == ["", ""]


def test_of_two_encodes_at_once_the_second_waits_and_says_so(tmp_path, start):
    text, cache = write(tmp_path / "a.txt", POEM * 10), tmp_path / "cache"
    processes = [start(text, cache, tmp_path / "go") for _ in range(2)]
    wait_for(lambda: "waiting for it" in (tmp_path / "errors").read_text())
    assert len(list(cache.glob("*.tmp"))) == 1
    (tmp_path / "go").touch()
    assert [process.communicate()[0] for process in processes] == [f"{len(POEM) * 9 + 2}\n"] * 2
    assert folders(cache) == [""]


def children(process: subprocess.Popen) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(number: int) -> bool:
    path = Path(f"/proc/{number}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_no_process_outlives_a_stopped_encode(number, tmp_path, start):
    text, cache = write(tmp_path / "a.txt", POEM * 500_000), tmp_path / "cache"
    process = start(text, cache, tmp_path / "go", workers=2)
    helpers = wait_for(lambda: (found := children(process)) and len(found) == 2 and found)
    wait_for(lambda: [path for path in cache.glob("*.tmp/train.bin") if path.stat().st_size])
    os.killpg(process.pid, number)  # as the terminal does for Ctrl-C
    process.communicate()
    wait_for(lambda: not any(map(is_alive, helpers)))
    if number == signal.SIGINT:
        assert folders(cache) == []
        errors = (tmp_path / "errors").read_text()
        assert errors.count("Traceback") == 1 and errors.endswith("KeyboardInterrupt\n")  # ours, that no one caught


# ---- a full disk ----


def full(monkeypatch, module: Any, name: str) -> None:
    """Have the file of this name, opened by a module, be on a full disk."""
    monkeypatch.setattr(module, "open", lambda path, *mode, **flags: open(  # noqa: SIM115
        "/dev/full" if Path(path).name == name else path, *mode, **flags), raising=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("end", ["bin", "starts"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(part, end, tmp_path, monkeypatch):
    corpus = corpus_of(tmp_path, ["one", "two"])
    full(monkeypatch, shards, f"{part}.{end}")
    with pytest.raises(ValueError, match="^/dev/full cannot be written .No space left on device.: make room on"):
        prepare(corpus, BYTES, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


LIMITED = """
import resource, sys
from pathlib import Path
from config import DataConfig
from corpora import files
from corpora.corpus import load_corpus
from corpora.shards import prepare
from tokenizer import ByteTokenizer
files.MIN_AGE_NS = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
cache = Path(sys.argv[2])
try:
    prepare(load_corpus(DataConfig(name=sys.argv[1], cache_dir=str(cache))), ByteTokenizer(), cache)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(("limit", "name"), [(5000, "[.]tmp/train[.]bin"), (0, "scans/[0-9a-f]+[.]json")])
def test_a_disk_that_takes_no_more_is_one_sentence_that_names_the_file(limit, name, tmp_path):
    text = write(tmp_path / "a.txt", POEM * 100)
    done = subprocess.run([sys.executable, "-c", LIMITED, text, tmp_path / "cache", str(limit)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.stderr == ""
    assert re.fullmatch(f"{tmp_path}/cache/.*{name} cannot be written .File too large.: make room on its disk, or set "
                        "data.cache_dir to a folder on another one\n", done.stdout)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.parent.name != "scans"]


# ---- what is shown ----


def test_a_long_encode_shows_its_speed_and_a_short_one_nothing(tmp_path, monkeypatch):
    for patience, shown in ((0.0, True), (60.0, False)):
        monkeypatch.setattr(shards, "PATIENCE", patience)
        console = Console(record=True, force_terminal=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
        prepare(corpus_of(tmp_path, ["one", "two"]), BYTES, tmp_path / str(patience), console=console)
        assert ("10 tokens" in console.export_text()) == shown
