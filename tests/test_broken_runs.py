"""Any file of a run may be damaged in any way: every program names the run and why, and goes on with the others."""

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import small_run_config
from thorough import further

import inference
import runs
import train
from experiments import compare
from experiments.comparing import comparison
from run_store import commands, listing
from run_store.atomic_files import SUMS, sha256
from showing.command import main as show

SECONDS = 20  # for every program and damage
LAST = "checkpoints/step_00000012"
FILES = ("config.json", "data.json", "environment.json", "memory.json", "grades.json", "log.csv", "samples.jsonl",
         "tokenizer/meta.json", f"{LAST}/model.safetensors", f"{LAST}/optimizer.pt", f"{LAST}/progress.json",
         f"{LAST}/{SUMS}")
UNREAD = ("environment.json", "memory.json", "grades.json")  # by what loads a run or goes on with it
HUGE = "9" * 400


def deeper(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def wrong_types(path: Path) -> None:
    """Each value of another type; in a file that is no JSON, each number a word."""
    try:
        tree = json.loads(path.read_text())
    except ValueError:
        path.write_text(path.read_text(errors="replace").replace("1", "one"))
        return
    tree = tree[0] if isinstance(tree, list) else tree
    path.write_text(json.dumps({name: [value] if isinstance(value, str | int | float) else 7
                                for name, value in tree.items()}))


def huge_numbers(path: Path) -> None:
    text = path.read_text(errors="replace")
    path.write_text("".join(HUGE if c.isdigit() else c for c in text) if len(text) < 5000 else HUGE)


def infinite(path: Path) -> None:
    tree = json.loads(path.read_text()) if path.suffix == ".json" else None
    if isinstance(tree, dict):
        path.write_text(json.dumps({name: float("inf") for name in tree}))
    else:
        path.write_text(path.read_text(errors="replace").replace("0.", "inf"))


def doubled(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def place_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "missing": Path.unlink, "empty": lambda path: path.write_bytes(b""), "pipe": pipe, "loop": loop,
    "folder": place_folder, "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 9), "deep": deeper, "types": wrong_types,
    "huge": huge_numbers, "infinite": infinite, "doubled": doubled, "null": lambda path: path.write_text("null"),
    "endless header": lambda path: path.write_bytes((2**60).to_bytes(8, "little") + b"{}"),
}


ALIKE = ("deep", "types", "huge", "infinite", "doubled", "null", "endless header")  # "noise", to a sum


def damages(file: str, fitting: bool) -> dict[str, Callable[[Path], object]]:
    """What is done to a file; to one whose sum no longer fits, other content is done once."""
    summed = file.startswith(LAST) and not file.endswith(SUMS) and not fitting
    return {name: act for name, act in DAMAGES.items() if not (summed and name in ALIKE)}


def refit(run: Path) -> None:
    """Make the sums of the checkpoint fit what is there."""
    folder = run / LAST
    names = [path.name for path in folder.iterdir() if path.name != SUMS and path.is_file()]
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


DAMAGED = [(file, fitting) for fitting in (False, True) for file in FILES
           if not fitting or (file.startswith(LAST) and not file.endswith(SUMS))]
# each with a third of what is done to a file; a usual run takes one third of each
TURNS = [(*case, turn) if turn == number % 3 else further((*case, turn))
         for number, case in enumerate(DAMAGED) for turn in range(3)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, predict_memory):
    """A finished run with every file that a run can have."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", place / "models")
        cfg = small_run_config(place, {"train.steps": 12})
        path = train.train(cfg, console=Console(file=io.StringIO())).path
    (path / "memory.json").write_text('{"peak_bytes": 1000, "allocator": "fast"}')
    (path / "grades.json").write_text('[{"passed": true, "text": "Once.", "kind": "", "position": 0, "message": ""}]')
    return path


@pytest.fixture
def program(monkeypatch, call, tmp_path):
    """Run a program in this process: (exit status, standard output, standard error); it must not take long."""
    models = tmp_path / "models"
    for module in (runs, commands, listing):
        monkeypatch.setattr(module, "MODELS", models)
    monkeypatch.setattr(comparison, "write_picture", lambda *_: None)  # takes most of the time
    mains = {"runs": commands.main, "compare": compare.main, "train": lambda: train.main(), "model": show,
             "inference": lambda: inference.main(sys.argv[1:])}

    def run(line: str) -> tuple[int, str, str]:
        name, *words = line.split()
        signal.alarm(SECONDS)
        try:
            return call(mains[name], *words)
        finally:
            signal.alarm(0)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("file", "fitting", "turn"), TURNS)
def test_a_damaged_run_is_named_and_the_others_are_shown(file, fitting, turn, whole, program, tmp_path):
    models = tmp_path / "models"
    for number, (damage, act) in enumerate(list(damages(file, fitting).items())[turn::3]):
        shutil.rmtree(models, ignore_errors=True)
        for name in ("good", "toy"):
            shutil.copytree(whole, models / name)
        act(models / "toy" / file)
        if fitting:
            refit(models / "toy")
        where = f"{file} {damage}"
        status, output, _ = program("runs list")
        assert status == 0 and "good" in output and "finished" in output, where
        lines = ["runs show toy", f"compare good toy --held-out 0 --png {tmp_path / 'x.png'}"]
        if file not in UNREAD:
            lines += [("inference toy --num-samples 1", "train --resume toy --train.steps 13")[number % 2]]
        for line in lines:
            status, output, errors = program(line)
            assert status in (0, 1, 2) and "Traceback" not in errors, f"{where}: {line}"
            if line.startswith("compare"):
                assert status == 0 and "good" in output, where
            if status:
                assert errors.startswith("error: ") or "error: " in errors, f"{where}: {line}: {errors}"
                assert max(map(len, errors.splitlines())) < 700, f"{where}: {line}: {errors[:900]}"


@pytest.mark.parametrize(("flag", "value"), [
    ("num_layers", 10**9), ("num_layers", 1), ("vocab_size", 10**10), ("dim", 10**6), ("hidden_dim", 10**15),
    ("max_seq_len", 10**12)])
def test_sizes_that_the_weights_do_not_have_are_refused_before_a_model_is_built(flag, value, whole, program, tmp_path):
    path = shutil.copytree(whole, tmp_path / "models" / "toy") / "config.json"
    tree = json.loads(path.read_text())
    tree["model"][flag] = value
    path.write_text(json.dumps(tree))
    for line in (
        "model toy", "inference toy --num-samples 1 --max-new-tokens 3", "train --resume toy --train.steps 13",
    ):
        began = time.monotonic()
        status, _, errors = program(line)
        assert time.monotonic() - began < 5
        if flag != "max_seq_len":
            assert status == 2 and "does not fit its configuration" in errors and errors.count("\n") == 1
        else:
            assert status in (0, 2) and "Traceback" not in errors
