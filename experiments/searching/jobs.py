"""A trial under way: its processes, one for each seed, what they have logged so far, and how they ended."""

import csv
import io
import math
import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import Trial

import runs
from config import Config
from configuration.command_line import spell_bytes
from memory_prediction.process import Watchdog

SPARE_BYTES, SPARE_RATIO = 32 << 20, 1.05


@dataclass
class Job:
    """A trial of this process's. Its phases: predicting, waiting (for memory), timing, training."""

    trial: Trial
    flags: dict[str, Any]  # all overrides on the base
    cfg: Config
    seeds: list[int]  # one run for each
    phase: str = "predicting"
    began: float = field(default_factory=time.monotonic)
    prediction: dict[str, Any] = field(default_factory=dict)
    granted_bytes: int = 0  # what its process may hold
    values: list[list[float]] = field(default_factory=list)  # the objectives of the runs that are done
    pid: int | None = None
    child_began: float = 0.0
    child_seconds: float = 0.0  # of all its processes
    peak_bytes: int = 0
    step_seconds: float | None = None  # measured, where time is to be equal
    reader: "LogReader | None" = None
    reported: int = -1  # the last evaluation that the pruner knows
    ended_by: str | None = None  # pruning, watchdog: why its process was sent a signal
    watchdog: ExitStack = field(default_factory=ExitStack)

    @property
    def number(self) -> int:
        return self.trial.number

    def run_name(self, study: str) -> str:
        """The saved run of the seed at hand."""
        again = f"-seed-{self.seeds[len(self.values)]}" if self.values else ""
        return f"{study}-{self.number:04d}{again}"

    @property
    def needed_bytes(self) -> int:
        """What its process may be granted where it shares the limit: a little more than was predicted."""
        expected = self.prediction["high_bytes" if self.prediction["allocator"] == "fast" else "low_bytes"]
        return round(expected * SPARE_RATIO) + SPARE_BYTES

    def value(self, column: str) -> float:
        """An objective of the run that has just ended."""
        measured = {"parameters": self.prediction["parameters"], "seconds": self.child_seconds,
                    "peak_bytes": self.peak_bytes}
        return float(measured[column] if column in measured else self.reader.last[column])

    def send(self, number: signal.Signals, reason: str) -> None:
        """Have its process end, and remember why."""
        if self.pid is not None and self.ended_by is None:
            self.ended_by = reason
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def started(self, pid: int) -> None:
        """Watch its process, which is to hold no more than was granted."""
        self.pid = pid
        self.watchdog.enter_context(
            Watchdog(pid, self.granted_bytes, lambda _: self.send(signal.SIGKILL, "watchdog")))

    def ended(self, peak_bytes: int) -> None:
        """Take down what is known of a process that has ended."""
        self.watchdog.close()
        self.child_seconds += time.monotonic() - self.child_began if self.child_began else 0.0
        self.peak_bytes, self.pid = max(self.peak_bytes, peak_bytes), None


class LogReader:
    """The lines of a run's log.csv, as they come."""

    def __init__(self, run: str):
        self._path, self._at, self._columns = runs.MODELS / run / "log.csv", 0, None
        self.last: dict[str, float] = {}  # the newest value in each column

    def new_lines(self) -> list[dict[str, float]]:
        """The lines since the last call; what was not measured is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[:data.rfind(b"\n") + 1]
        self._at += len(whole)
        rows = list(csv.reader(io.StringIO(whole.decode())))
        if self._columns is None and rows:
            self._columns = rows.pop(0)
        lines = [{name: float(value) for name, value in zip(self._columns, row, strict=True) if value} for row in rows]
        for line in lines:
            self.last |= line
        return lines


@dataclass(frozen=True)
class Ending:
    """How a trial's process ended: an outcome, and a sentence on it."""

    outcome: str  # done, pruned, invalid, out of memory, crashed, diverged, lost
    reason: str = ""


def ending(job: Job, status: int, log: Path, column: str | None) -> Ending:
    """What an exit status means, with what the process said last and what was asked of it."""
    said = last_line(log)
    if status == 0:
        value = job.reader.last.get(column, 0.0) if job.reader and column else 0.0
        return Ending("done") if math.isfinite(value) else Ending("diverged", f"{column} is {value}")
    if job.ended_by == "watchdog":
        return Ending("out of memory", f"it held {spell_bytes(job.peak_bytes)} and was ended: {granted(job)}")
    if job.ended_by == "pruning":
        return Ending("pruned", "worse than the trials before it at the same point")
    match status:
        case 76 | 77:
            return Ending("out of memory", said)
        case 1 if said.startswith("error: step "):
            return Ending("diverged", said.removeprefix("error: "))
        case 2:
            return Ending("invalid", said.removeprefix("error: "))
        case -6 | -9 | -11 if job.peak_bytes > 0.9 * job.granted_bytes:  # some libraries do not check what they get
            held = f"ended by signal {-status} at {spell_bytes(job.peak_bytes)}"
            return Ending("out of memory", f"{held}: {granted(job)}")
        case -9 | 143 | 130 | -15:
            return Ending("lost", "its process was ended from outside")
        case _:
            return Ending("crashed", f"exit status {status}: {said}" if said else f"exit status {status}")


def granted(job: Job) -> str:
    return f"{spell_bytes(job.granted_bytes)} were granted, {spell_bytes(job.prediction['low_bytes'])} predicted"


def last_line(log: Path) -> str:
    """What a process said last; "" = nothing."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        if lines := file.read().decode(errors="replace").strip().splitlines():
            return lines[-1].strip()
    return ""

