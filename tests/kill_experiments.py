"""Kill search.py, ablate.py, ladder.py, scaling.py wherever they are: `python tests/kill_experiments.py --moments 10`.

At moments drawn at random SIGKILL hits the command alone, one process below it, or all of them. Whatever the command
has left alone must die, and the same command must end with all results, none lost and none twice, and leave no
process, lock or unfinished folder. Prints what does not; the exit status is their number.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import optuna  # noqa: E402
import pandas as pd  # noqa: E402
import yaml  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from small_runs import small_run_config, write_text_file  # noqa: E402

from config import save_config  # noqa: E402

WHO = ("the command", "one process", "all processes")
KILLS = 2  # before a command may end: a trial is given up after three deaths
DEATH_SECONDS, END_SECONDS = 30, 300  # on a busy machine
LEFT = ("*.tmp", "*lock", "worker-*")  # names of unfinished folders and of locks


@dataclass(frozen=True)
class Program:
    """A command, and what is wrong with what it has left in a folder when it has ended."""

    words: tuple[str, ...]
    faults: Callable[[Path], list[str]]


# ---- the programs, small ----


def faults_of_search(folder: Path) -> list[str]:
    """Each of the four points of the grid must be done once."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "results" / "toy" / "journal.log")))
    trials = optuna.load_study(study_name="toy", storage=storage).trials
    done = [trial for trial in trials if trial.user_attrs.get("outcome") == "done" and trial.state.name == "COMPLETE"]
    said = [f"trial {trial.number} is {trial.state.name}" for trial in trials if not trial.state.is_finished()]
    if sorted(str(trial.params) for trial in done) != sorted({str(trial.params) for trial in done}) or len(done) != 4:
        said.append(f"done: {[trial.params for trial in done]} of "
                    f"{[trial.user_attrs.get('reason') for trial in trials]}")
    return said + faults_of_runs(folder, {trial.user_attrs["run"] for trial in done})


def faults_of_ablation(folder: Path) -> list[str]:
    table = pd.read_csv(folder / "results" / "toy" / "table.csv")
    said = [] if list(table.runs) == [2, 2] else [f"runs in the table: {list(table.runs)}"]
    return said + faults_of_runs(folder, {f"toy-{name}-seed-{n}" for name in ("base", "norm-layer") for n in (0, 1)})


def faults_of_ladder(folder: Path) -> list[str]:
    names = {"toy-01-bigram", "toy-03-positions", "toy-05-attention"}
    table = pd.read_csv(folder / "results" / "toy" / "table.csv")
    said = [] if len(table) == 3 else [f"rungs in the table: {len(table)}"]
    return said + faults_of_runs(folder, names)


def faults_of_scaling(folder: Path) -> list[str]:
    names = {f"toy-dim-{dim}-{tokens}-seed-0" for dim in (8, 16) for tokens in ("6400", "19200")}
    table = pd.read_csv(folder / "results" / "toy" / "points.csv")
    said = [] if {*table.run} == names else [f"runs in the table: {sorted(table.run)}"]
    return said + faults_of_runs(folder, names)


def faults_of_runs(folder: Path, names: set[str]) -> list[str]:
    """The runs must be these, whole, and have logged each step once."""
    there = {path.name for path in (folder / "models").iterdir()}
    said = [] if there == names else [f"runs: {sorted(there)} instead of {sorted(names)}"]
    for path in (folder / "models" / name for name in there & names):
        steps = list(pd.read_csv(path / "log.csv").step)
        if not (path / "loss.png").exists() or steps != sorted(set(steps)):
            said.append(f"{path.name} is unfinished, or has logged {steps}")
    return said


PROGRAMS = {
    "search": Program(("search.py", "--space", "{}/toy.yaml", "--sampler", "grid", "--pruner", "none", "--jobs", "2"),
                      faults_of_search),
    "ablate": Program(("ablate.py", "--config", "{}/base.json", "--vary", "model.norm=layer", "--seeds", "2", "--name",
                       "toy", "--jobs", "2"), faults_of_ablation),
    "ladder": Program(("ladder.py", "--only", "1", "3", "5", "--tokens", "65536", "--data.name", "{}/text.txt",
                       "--data.cache-dir", "{}/cache", "--name", "toy", "--jobs", "2"), faults_of_ladder),
    "scaling": Program(("scaling.py", "--config", "{}/base.json", "--sizes", "model.dim=8", "model.dim=16", "--tokens",
                        "6400", "19200", "--name", "toy", "--jobs", "2"), faults_of_scaling),
}


def prepare(folder: Path) -> None:
    """The text, the base and the space."""
    write_text_file(folder / "text.txt", num_words=4000)
    save_config(small_run_config(folder, {
        "train.name": None, "train.steps": 300, "train.eval_every": 100, "train.log_every": 1,
        "train.checkpoint_every": 10, "train.sample_every": 300, "sample.num_samples": 1, "sample.max_new_tokens": 2}),
        folder / "base.json")
    space = {"base": str(folder / "base.json"), "search": {"model.dim": [16, 24], "train.lr": [0.01, 0.02]}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(space))


# ---- processes ----


def start(program: Program, folder: Path) -> subprocess.Popen:
    script, *words = (word.format(folder) for word in program.words)
    environment = os.environ | {"SHAPESHIFTER_MODELS": str(folder / "models"), "OMP_NUM_THREADS": "1",
                                "SHAPESHIFTER_RESULTS": str(folder / "results")}
    with open(folder / "errors", "w") as errors:
        return subprocess.Popen([sys.executable, ROOT / "experiments" / script, *words], env=environment,
                                stdout=subprocess.DEVNULL, stderr=errors)


def alive(folder: Path) -> list[int]:
    """The processes that work on a folder, which their environment names."""
    found, mark = [], f"SHAPESHIFTER_MODELS={folder}/models\0".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (path / "environ").read_bytes() and " Z " not in (path / "stat").read_text():
                found.append(int(path.name))
    return found


def kill(command: subprocess.Popen, who: str, folder: Path, drawn: random.Random) -> None:
    """SIGKILL some of the processes of a command."""
    pids = alive(folder)
    below = [pid for pid in pids if pid != command.pid]
    chosen = {"the command": [command.pid], "one process": below and [drawn.choice(below)], "all processes": pids}[who]
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def orphans(folder: Path) -> list[str]:
    """What lives on after the command."""
    until = time.monotonic() + DEATH_SECONDS
    while (pids := alive(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return [f"a process lives on: {Path(f'/proc/{pid}/cmdline').read_text()}" for pid in pids]


def end(command: subprocess.Popen, folder: Path) -> tuple[int | None, str]:
    """(exit status, what it says on stderr); None = it does not end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(END_SECONDS)
    if (status := command.poll()) is None:
        kill(command, "all processes", folder, random.Random())
        command.wait()
    return status, (folder / "errors").read_text()


# ---- lives and deaths ----


def live(program: Program, who: str, seconds: float, drawn: random.Random, folder: Path) -> list[str]:
    """Kill a command KILLS times within so many seconds from its start, then let it end; what is wrong then.

    "nobody" is not killed.
    """
    said, command = [], start(program, folder)
    for _ in range(KILLS if who in WHO else 0):
        time.sleep(drawn.uniform(0, seconds))
        kill(command, who, folder, drawn)
        if who != "one process":
            command.wait()
            said += orphans(folder)
            command = start(program, folder)
    status, errors = end(command, folder)
    if who == "one process" and status == 2 and errors.count("\n") == 1:  # the first process below it had work for all
        status, errors = end(start(program, folder), folder)
    if status != 0 or "Traceback" in errors:
        return [*said, f"status {status}: {errors[-1000:]}"]
    left = [str(path) for kind in LEFT for path in folder.rglob(kind)]
    return said + orphans(folder) + program.faults(folder) + [f"left: {path}" for path in left]


def seconds_alone(program: Program, folder: Path) -> float:
    """How long a command takes. Raises AssertionError if it fails without a kill."""
    folder.mkdir()
    prepare(folder)
    began = time.monotonic()
    assert not (found := live(program, "nobody", 0, random.Random(), folder)), found
    return time.monotonic() - began


def drawn_lives(options: argparse.Namespace, place: Path) -> list[str]:
    """What is wrong after each life."""
    said, drawn = [], random.Random(options.seed)
    seconds = {name: options.seconds or seconds_alone(PROGRAMS[name], place / name) for name in options.programs}
    for number, who, name in product(range(-(-options.moments // KILLS)), WHO, options.programs):
        (folder := place / f"{name}-{who.replace(' ', '-')}-{number}").mkdir()
        prepare(folder)
        found = live(PROGRAMS[name], who, seconds[name], drawn, folder)
        print(f"{name}, {who}, {number}: {'; '.join(found) or 'well'}", flush=True)
        said += found
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="from a start to a kill; None = as it takes alone")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = drawn_lives(options, Path(place))
    print(*found, sep="\n")
    raise SystemExit(min(len(found), 100))


if __name__ == "__main__":
    main()
