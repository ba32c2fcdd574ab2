"""`python runs.py` lists a thousand runs without torch; what it removes is gone whole, and is what was meant."""

import csv
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import DATA, content

import runs
from config import Config, override
from presets import load_preset
from run_store import commands, unfinished
from run_store.atomic_files import SUMS, sha256
from run_store.listing import MAX_LINE_BYTES, list_names, summarize_run
from run_store.lock import locked
from run_store.unfinished import MARKER
from runs import Run
from tokenizer import ByteTokenizer

LOSSES = {100: 3.0, 200: 2.0, 300: 2.5}  # the best is neither the first nor the last


@pytest.fixture(autouse=True)
def place(models, monkeypatch):
    """The folder of the runs, for the command too."""
    monkeypatch.setattr(commands, "MODELS", models)
    models.mkdir()
    return models


@pytest.fixture
def command(call):
    """`python runs.py ...` in this process, nobody at the terminal."""
    return lambda *words: call(commands.main, *words)


@pytest.fixture
def answer(monkeypatch):
    """Somebody sits at the terminal, and will say this."""
    def say(word: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{word}\n"))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    return say


def make_run(name: str, *, finished: bool = True, losses: dict[int, float] = LOSSES, base: Config | None = None) -> Run:
    """A run whose log and checkpoints tell these losses, and which has trained nothing."""
    base = base or Config()
    cfg = override(base, {"model.dim": 16, "model.attention.num_heads": 2, "model.vocab_size": 259, "train.name": name,
                          "train.steps": 300})
    run = Run.create(name, cfg, ByteTokenizer(), DATA)
    for step, loss in losses.items():
        run.append({"step": step, "tokens": 8 * step, "val_loss": loss, "bits_per_byte": loss / 2})
        folder = run.path / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, folder / "model.safetensors", {"format": "pt"})
        (folder / "progress.json").write_text(json.dumps({"step": step, "val_loss": loss}))
        (folder / "optimizer.pt").write_bytes(b"a state")
        sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
        (folder / SUMS).write_text("".join(sums))
    run.append_samples(300, [{"prompt": "Once", "text": "Once there was a fox."}])
    if finished:
        (run.path / "loss.png").write_bytes(b"a picture")
    return run


def make_old(path: Path) -> None:
    """As if nobody had touched it for an hour."""
    os.utime(path, (time.time() - 3600, time.time() - 3600))


def steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


# ---- list ----


def test_no_name_in_the_csv_is_a_formula(command):
    run = make_run("sum")
    run.path.rename(run.path.with_name("=1+1"))
    assert command("list", "--csv")[1].splitlines()[1].startswith("'=1+1,")


def test_a_long_log_is_read_as_a_stream(command):
    run, lines = make_run("long", losses={}), 100_000
    with (run.path / "log.csv").open("w") as log:
        log.write("step,tokens,bits_per_byte,note\n")
        log.writelines(f"{step},{8 * step},{1 + step / lines},{'x' * 50}\n" for step in range(lines))
    tracemalloc.start()
    summary, (status, said, _) = summarize_run(run.path), command("show", "long")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (summary.step, summary.best, summary.last) == (99_999, 1.0, 1.99999)
    assert status == 0 and "99999" in said and peak < 5e6


def test_a_line_that_never_ends_is_damage(command):
    run = make_run("endless", losses={100: 3.0})
    with (run.path / "log.csv").open("ab") as log:
        log.truncate(2 * MAX_LINE_BYTES)
        log.seek(0, os.SEEK_END)
        log.write(b"\n")
    assert "a line is longer than" in summarize_run(run.path).problem



def test_a_trained_run_is_listed_with_what_it_is_and_how_far_it_came(reference, command, monkeypatch):
    monkeypatch.setattr(commands, "MODELS", reference.path.parent)
    (summary,) = json.loads(command("list", "--json")[1])
    log = reference.log()
    assert summary == {
        "name": "toy", "when": (reference.path / "log.csv").stat().st_mtime, "state": "finished",
        "parameters": reference.load_model().num_parameters(), "data": reference.data["name"], "step": 24, "steps": 24,
        "tokens": log.tokens.iloc[-1], "best": log.bits_per_byte.min(),
        "last": log.bits_per_byte.dropna().iloc[-1], "problem": None, "sign": "",
        "num_bytes": sum(path.stat().st_size for path in reference.path.rglob("*") if path.is_file())}


def test_a_run_is_finished_interrupted_being_trained_or_broken(command):
    make_run("done")
    make_run("new", finished=False, losses={})
    make_run("stopped", finished=False)
    (make_run("bad").path / "config.json").write_text("{")
    with make_run("busy", finished=False).locked():
        status, output, errors = command("list", "--sort", "name")
    assert (status, errors) == (0, "")
    heading, *lines, problem = output.splitlines()
    assert heading.split() == ["name", "when", "state", "parameters", "data", "step", "tokens", "best", "last", "size"]
    told = [line.split() for line in lines]  # the date has a space within
    assert [(line[0], line[3]) for line in told] == [
        ("bad", "broken"), ("busy", "training"), ("done", "finished"), ("new", "interrupted"),
        ("stopped", "interrupted")]
    assert told[2][4:9] == ["22", "text", "300/300", "2,400", "1.0000"] and told[2][9] == "1.2500"
    assert told[3][4:10] == ["-", "text", "0/300", "-", "-", "-"]
    assert problem.startswith("bad is broken: config.json cannot be read")


DAMAGE = {
    "no config": ("config.json", None, "config.json is missing"),
    "cut config": ("config.json", "{", "config.json cannot be read"),
    "no sections": ("config.json", "[]", "config.json cannot be read: it holds no names"),
    "unknown flag": ("config.json", '{"model": {"dimm": 3}}', "config.json: model.dimm is not a flag"),
    "no data": ("data.json", None, "data.json is missing"),
    "cut data": ("data.json", "{", "data.json cannot be read"),
    "no number": ("log.csv", "step,tokens,bits_per_byte\nx,1,2\n", "log.csv is damaged"),
    "no log": ("log.csv", None, "log.csv is missing"),
    "empty log": ("log.csv", "step,tokens,bits_per_byte\n", "log.csv is empty"),
    "no columns": ("log.csv", "a,b\n1,2\n", "log.csv is damaged"),
    "cut weights": ("checkpoints/step_00000300/model.safetensors", "abc", "step_00000300/model.safetensors cannot be"),
}


@pytest.mark.parametrize(("name", "text", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_broken_run_is_listed_and_shown_with_the_reason(command, name, text, said):
    path = make_run("bad").path / name
    path.unlink() if text is None else path.write_text(text)
    (summary,) = json.loads(command("list", "--json")[1])
    assert summary["state"] == "broken" and said in summary["problem"]
    status, output, errors = command("show", "bad")
    assert (status, errors) == (0, "") and f"broken: {summary['problem']}" in output


def test_weights_that_end_too_early_are_told_by_their_length(command):
    weights = make_run("bad").path / "checkpoints" / "step_00000300" / "model.safetensors"
    os.truncate(weights, size := weights.stat().st_size - 1)
    (summary,) = json.loads(command("list", "--json")[1])
    assert summary["state"] == "broken" and f": {size:,} bytes are there of {size + 1:,}" in summary["problem"]


def test_a_line_of_the_log_that_a_kill_cut_short_does_not_count():
    run = make_run("cut", finished=False, losses={})
    run.append({"step": 5, "tokens": 40, "bits_per_byte": 2.5})
    with (run.path / "log.csv").open("a") as log:
        log.write("10,8")
    summary = summarize_run(run.path)
    assert (summary.state, summary.step, summary.tokens, summary.last) == ("interrupted", 5, 40, 2.5)
    for text in ("step,tok", "step,tokens,bits_per_byte\n5,4"):
        (run.path / "log.csv").write_text(text)
        assert (summarize_run(run.path).state, summarize_run(run.path).step) == ("interrupted", 0)


def test_the_list_is_sorted_by_any_column_and_what_is_not_known_comes_last(command):
    make_run("b", losses={100: 3.0})
    make_run("a", losses={100: 2.0})
    make_run("c", losses={})
    def names(*words):
        return [summary["name"] for summary in json.loads(command("list", "--json", *words)[1])]
    assert names("--sort", "best") == ["a", "b", "c"]
    assert names("--sort", "best", "--reverse") == ["b", "a", "c"]
    assert names("--sort", "name", "--reverse") == ["c", "b", "a"]
    make_old(Path(runs.MODELS / "b" / "log.csv"))
    assert names()[0] == "b"
    assert names("--sort", "name", "[ac]", "b") == ["a", "b", "c"]
    assert names("c") == ["c"]


def test_csv_and_json_say_the_same(command):
    make_run("toy")
    (line,) = csv.DictReader(io.StringIO(command("list", "--csv")[1]))
    (summary,) = json.loads(command("list", "--json")[1])
    assert line == {name: "" if value is None else str(value) for name, value in summary.items()}


def test_a_terminal_gets_a_table_as_wide_as_it_is_and_a_pipe_the_whole_names(command, monkeypatch):
    name = "a-long-name-" * 12
    make_run(name)
    assert name in command("list")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "90")
    assert name not in (shown := command("list")[1])
    assert "finished" in shown and "\x1b[1m" in shown


def test_no_runs_are_no_mistake(command):
    assert command("list") == (0, f"no runs in {runs.MODELS}\n", "")
    assert command("list", "--json") == (0, "[]\n", "")


def test_a_run_that_is_removed_meanwhile_is_not_listed(command, place, monkeypatch):
    make_run("toy")
    monkeypatch.setattr(commands, "run_folders", lambda models: [models / "gone", models / "toy"])
    assert [summary["name"] for summary in json.loads(command("list", "--json")[1])] == ["toy"]


LISTING = """
import json, runpy, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
sys.argv = ["runs.py", "list"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    print(json.dumps({"modules": list(sys.modules), "opened": opened}))
"""


@pytest.mark.slow
def test_a_thousand_runs_are_listed_without_torch_and_five_files_of_each_are_opened(place):
    made = make_run("run-0000", finished=False).path
    files = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for number in range(1, 1000):
        for name, data in files.items():
            path = place / f"run-{number:04d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    listing = subprocess.run([sys.executable, "-c", LISTING], cwd=runs.ROOT, text=True, capture_output=True, check=True,
                             env=os.environ | {"SHAPESHIFTER_MODELS": str(place)}).stdout.splitlines()
    assert len(listing) == 1 + 1000 + 1
    work = json.loads(listing[-1])
    assert not {"torch", "pandas", "matplotlib", "model", "tokenizer"} & set(work["modules"])
    assert len([name for name in work["opened"] if name.startswith(str(place))]) == 5 * 1000


def test_a_reader_that_has_seen_enough_is_no_mistake(place):
    for number in range(3):
        make_run("a-long-name-" * 16 + str(number))
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run([sys.executable, "runs.py", "list"], cwd=runs.ROOT, text=True, stdout=writer,
                             stderr=subprocess.PIPE, env=os.environ | {"SHAPESHIFTER_MODELS": str(place)})
    os.close(writer)
    assert (listing.returncode, listing.stderr) == (1, "")


# ---- show ----


def test_show_tells_the_nearest_preset_the_flags_that_differ_the_checkpoints_and_the_samples(command):
    make_run("toy", base=override(load_preset("gpt2"), {"train.lr": 0.125}))
    status, output, errors = command("show", "toy")
    assert (status, errors) == (0, "")
    parts = {part.partition("\n")[0]: part for part in output.split("\n\n")}
    assert "22 parameters, data text, step 300 of 300, 2,400 tokens, bits per byte 1.0000 at best, 1.2500" in output
    flags = [line.split() for line in parts["flags"].splitlines()[1:]]
    assert flags[0] == ["preset", "gpt2"]
    assert [(flag, value, before) for flag, value, before in flags[1:]] == [
        ("model.dim", "16", "(768)"), ("model.vocab_size", "259", "(50257)"),
        ("model.attention.num_heads", "2", "(12)"),
        ("train.steps", "300", "(2000)"), ("train.lr", "0.125", "(0.0006)")]
    marks = [line.split(" bytes")[-1].split() for line in parts["checkpoints"].splitlines()[1:]]
    assert marks == [[], ["best"], ["last"]]
    assert "bits_per_byte  1.25" in parts["last line of the log"]
    assert f"torch      {torch.__version__}" in parts["made with"]
    assert parts["newest samples"].endswith("Once there was a fox.\n")


def test_show_takes_a_path_and_a_pattern_that_means_one_run(command, tmp_path):
    run = make_run("toy")
    elsewhere = run.path.rename(tmp_path / "elsewhere")
    assert command("show", str(elsewhere))[1].startswith("elsewhere: finished")
    for name in ("one", "two"):
        make_run(name)
    assert command("show", "tw*")[1].startswith("two: finished")
    assert command("show", "*") == (2, "", "error: * means 2 runs (one, two): name one\n")


# ---- rm ----


def test_rm_removes_what_is_named_and_nothing_else(command, place):
    for name in ("a-1", "a-2", "b", "c"):
        make_run(name)
    status, output, errors = command("rm", "a-*", str(place / "b"), "--yes")
    assert (status, errors) == (0, "")
    assert [path.name for path in place.iterdir()] == ["c"]
    assert output.endswith("bytes\n") and "removed 3, " in output


@pytest.mark.parametrize(("word", "is_removed"), [("y", True), ("YES", True), ("n", False), ("", False)])
def test_rm_asks_first(command, answer, word, is_removed):
    run = make_run("toy")
    answer(word)
    status, output, errors = command("rm", "toy")
    assert (status, errors, run.path.exists()) == (0, "", not is_removed)
    assert "remove 1, " in output and ("nothing is removed" in output) == (not is_removed)


REFUSED = {
    "nobody to ask": (["good"], "there is no terminal to ask at: use --yes"),
    "no name": (["--yes"], "NAME is missing"),
    "no run": (["good", "plain", "--yes"], "plain is not a run in "),
    "no such run": (["good", "nowhere", "--yes"], "nowhere is not a run in "),
    "no match": (["good", "x*", "--yes"], "x* is not a run in "),
    "the folder of all": ([".", "--yes"], ". is not a run in "),
    "above it": (["..", "--yes"], ".. is not a run in "),
    "within a run": (["good/checkpoints", "--yes"], "good/checkpoints is not a run in "),
    "hidden": ([".half.tmp", "--yes"], ".half.tmp is not a run in "),
    "being trained": (["good", "busy", "--yes"], "busy is being trained by another process: wait until"),
    "being trained and broken": (["good", "worse", "--yes"], "worse is being trained by another process: wait until"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_rm_refuses_in_one_sentence_and_removes_nothing(command, place, monkeypatch, words, said):
    make_run("good")
    (place / "plain").mkdir()
    (place / "plain" / "notes.txt").write_text("mine")
    make_run("half").path.rename(place / ".half.tmp")
    busy, worse = make_run("busy", finished=False), make_run("worse", finished=False)
    (worse.path / "config.json").unlink()
    before = content(place)
    monkeypatch.chdir(place)
    with busy.locked(), locked(worse.path):
        status, output, errors = command("rm", *words)
    assert status == 2 and errors.startswith("error: ") and said in errors and errors.count("\n") == 1
    assert content(place) == before


def test_rm_of_a_link_leaves_what_it_leads_to(command, place, tmp_path):
    inside, outside = make_run("inside"), make_run("outside").path.rename(tmp_path / "outside")
    (place / "one").symlink_to(outside)
    (place / "two").symlink_to(inside.path)
    assert command("rm", "one", str(place / "two"), "--yes")[0] == 0
    assert [path.name for path in place.iterdir()] == ["inside"] and (outside / "config.json").exists()


def test_rm_that_is_cut_short_leaves_no_half_of_a_run_and_prune_ends_it(command, place, monkeypatch):
    make_run("toy")

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.shutil, "rmtree", fail)
        status, _, errors = command("rm", "toy", "--yes")
    assert status == 2 and errors.endswith(": Input/output error\n")
    assert command("list")[1].startswith("no runs")
    assert command("prune", "--yes")[0] == 0
    assert not list(place.iterdir())


# ---- prune ----


def untidy(place: Path) -> set[Path]:
    """Runs and folders of every kind; what of them may go."""
    done, stopped, damaged = make_run("done"), make_run("stopped", finished=False), make_run("damaged")
    (damaged.path / "checkpoints" / "step_00000100" / "progress.json").write_text("{")
    for name in ("logged", "trained"):  # broken, but there is something in them
        (make_run(name).path / "config.json").unlink()
    shutil.rmtree(place / "logged" / "checkpoints")
    (place / "trained" / "log.csv").unlink()
    empty, torn = make_run("empty", losses={}), stopped.path / "checkpoints" / ".step_00000400.0a1b2c3d.tmp"
    (empty.path / "config.json").unlink()
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"abc")
    before = stopped.path / "checkpoints" / ".step_00000100.before.tmp"  # what a save that was cut short will need
    before.mkdir()
    (before / "model.safetensors").write_bytes(b"abc")
    half = make_run("half").path.rename(place / ".half.0a1b2c3d.tmp")
    for path in (torn, half):
        (path / MARKER).touch()
    make_run("theirs").path.rename(place / ".theirs.tmp")
    (place / "plain").mkdir()
    return {done.path / "checkpoints" / "step_00000100", empty.path, torn, half}


def test_prune_removes_what_can_go_and_says_how_many_bytes(command, place):
    gone = untidy(place)
    before = content(place)
    sizes = [path.stat().st_size for folder in gone for path in folder.rglob("*") if path.is_file()]
    status, output, errors = command("prune", "--dry-run")
    assert (status, errors, content(place)) == (0, "", before)
    assert {Path(line.partition("  ")[0]) for line in output.splitlines()[:-1]} == gone
    assert output.splitlines()[-1] == f"{sum(sizes):,} bytes would be freed"
    status, output, errors = command("prune", "--yes")
    assert (status, errors) == (0, "") and f"removed 4, {sum(sizes):,} bytes" in output
    left = {name: sha for name, sha in before.items() if not any((place / name).is_relative_to(g) for g in gone)}
    assert content(place) == left and not any(path.exists() for path in gone)
    assert (steps(Run("done")), steps(Run("stopped")), steps(Run("damaged"))) == ([200, 300], [100, 200, 300],
                                                                                [100, 200, 300])
    assert command("prune", "--yes") == (0, "there is nothing to remove\n", "")


def test_after_prune_the_best_and_the_last_checkpoint_are_what_they_were(command):
    run = make_run("toy", losses={100: 3.0, 200: 2.0, 300: 2.0, 400: 2.5})
    (run.path / "checkpoints" / "step_00000100" / "progress.json").write_text('{"step": 100, "val_loss": null}')
    assert command("prune", "--yes")[0] == 0
    assert steps(run) == [200, 400]


@pytest.mark.parametrize(("name", "left"), [("model.safetensors", b"abc"), ("optimizer.pt", b""), (SUMS, b"")])
def test_prune_keeps_what_a_damaged_last_checkpoint_leaves_to_go_on_from(command, name, left):
    run = make_run("toy")
    (run.path / "checkpoints" / "step_00000300" / name).write_bytes(left)
    assert command("prune", "--yes") == (0, "there is nothing to remove\n", "")
    assert steps(run) == [100, 200, 300]


@pytest.mark.parametrize(("data", "shown"), [
    ("tales", "tales"), ("/home/ann/texts/a.txt", "a.txt"), ("../b.txt c.txt", "b.txt c.txt"),
    ("ann/texts", "ann/texts"),
    ("/x/" + "long" * 20 + ".txt", "..." + ("long" * 20 + ".txt")[-29:])])
def test_the_list_shows_the_name_of_a_text_without_its_folders(command, data, shown):
    run = make_run("toy")
    (run.path / "data.json").write_text(json.dumps(DATA | {"name": data}))
    assert f"  {shown}  " in command("list")[1] and data in command("show", "toy")[1]


def test_prune_takes_names_and_leaves_the_others(command, place):
    make_run("a")
    make_run("b")
    half = make_run("half").path.rename(place / ".half.0a1b2c3d.tmp")
    (half / MARKER).touch()
    assert command("prune", "a", "--yes")[0] == 0
    assert (steps(Run("a")), steps(Run("b")), half.exists()) == ([200, 300], [100, 200, 300], True)


def test_prune_asks_first_and_leaves_alone_what_is_being_trained(command, answer, place):
    run = make_run("toy")
    assert command("prune")[0] == 2
    answer("n")
    assert command("prune")[1].endswith("nothing is removed\n")
    with run.locked():
        status, _, errors = command("prune", "--yes")
    assert (status, steps(run)) == (2, [100, 200, 300]) and "toy is being trained" in errors


# ---- beside training ----


def test_who_looks_whether_a_run_is_being_trained_keeps_nobody_from_training_it_or_looking():
    run = make_run("toy", finished=False)
    with (run.path / "data.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert summarize_run(run.path).state == "interrupted"
        threading.Timer(0.02, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with run.locked():
            assert summarize_run(run.path).state == "training"
    assert summarize_run(run.path).state == "interrupted"


@pytest.mark.parametrize(("words", "said"), [
    ("", "Expected one of"), ("lst", "use one of list, show, rm, prune"), ("list --sort size2", "--sort"),
    ("list --json --csv", "--json and --csv are two formats"), ("list nowhere", "nowhere is not a run in"),
    ("show", "NAME is missing"), ("show nowhere", "nowhere is not a run in"),
    ("prune nowhere", "nowhere is not a run in")])
def test_a_mistake_is_one_sentence(command, words, said):
    status, output, errors = command(*words.split())
    assert (status, output) == (2, "") and errors.startswith("error: ")
    assert said in errors and errors.count("\n") == 1


def test_of_a_thousand_runs_a_sentence_names_the_nearest():
    names = [*(f"try-{number:03}" for number in range(999)), "window-small"]
    assert list_names([]) == "no runs yet" and list_names(names[:3], "x") == "try-000, try-001, try-002"
    assert list_names(names, "windo-small") == "window-small and 999 more, see python runs.py list"
    assert list_names(names, "what").startswith("try-000, try-001, ")
