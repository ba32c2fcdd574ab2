"""The benchmark startup: how long a command takes until it has answered, or a run until its first step."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.benchmark_options import Startup
from run_store.listing import ROOT

RUN = "short"  # the run that the commands find
SHORT_RUN = ("tales", "--scale", "1M", "--train.steps", "2", "--train.log-every", "1", "--train.graded-stories", "0")
PROGRAMS = sorted(path.relative_to(ROOT).as_posix() for folder in (ROOT, ROOT / "experiments")
                  for path in folder.glob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Start:
    """A command, the seconds that it may take, and until when they count."""

    words: tuple[str, ...]  # after `python`
    bar: float | None  # seconds; None = as many as it needs
    trains: bool = False  # they count until the first line of the run's log, and the bar holds for the clock too


class Seconds(NamedTuple):
    """Processor time, of the user and the system, and the time that passed."""

    processor: float
    clock: float


STARTS = (
    Start(("-c", "import torch"), None),
    Start(("train.py", "--train.lrr", "1"), 0.5),
    Start(("runs.py", "list"), 0.5),
    *(Start((program, "--help"), 0.5) for program in PROGRAMS),
    Start(("inference.py", RUN, "Once", "--num-samples", "1", "--max-new-tokens", "1"), 2.0),
    Start(("memory.py",), 3.0),
    Start(("memory.py", "gpt2", "--scale", "1M"), 3.0),
    Start(("presets.py",), None),
    Start(("train.py", *SHORT_RUN), 4.0, trains=True),
)


def run(options: Startup, console: Console) -> bool:
    """Print a row for each command; whether all stay within their bars."""
    table, kept = Table("command", "processor, s", "clock, s", "bar, s"), True
    with tempfile.TemporaryDirectory() as folder:
        measure(Start(("train.py", *SHORT_RUN, "--train.name", RUN), None), Path(folder))  # and warms all caches
        for start in STARTS:
            best = fastest([measure(start, Path(folder)) for _ in range(options.rounds)])
            holds = start.bar is None or max(best if start.trains else best[:1]) < start.bar
            told = "" if start.bar is None else f"{start.bar:g}{'' if holds else ' missed'}"
            until = " # until its first step" if start.trains else ""
            table.add_row(f"python {shlex.join(start.words)}{until}", *(f"{seconds:.2f}" for seconds in best), told)
            kept &= holds
    console.print(table)
    return kept


def fastest(rounds: list[Seconds]) -> Seconds:
    """The least of each time."""
    return Seconds(*map(min, zip(*rounds, strict=True)))


def measure(start: Start, models: Path) -> Seconds:
    """Start a command in a fresh process, on one thread. Raises ValueError if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SHAPESHIFTER_MODELS": str(models)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a file is compiled once, as for users
    name = f"started-{time.time_ns()}"
    words = (*start.words, "--train.name", name) if start.trains else start.words
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    if start.trains:
        wait_for_line(models / name / "log.csv", process.pid)
        os.kill(process.pid, signal.SIGKILL)  # process.kill() would take what it has used
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((-signal.SIGKILL,) if start.trains else (0, 2)):  # 2: the mistake
        raise ValueError(f"python {shlex.join(words)} ended with {process.returncode}")
    return Seconds(usage.ru_utime + usage.ru_stime, time.perf_counter() - began)


def wait_for_line(log: Path, pid: int) -> None:
    """Return when a log has a line below its header, or the process has ended."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if log.exists() and log.read_bytes().count(b"\n") > 1:
            return
        time.sleep(POLL_SECONDS)
