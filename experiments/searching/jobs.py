"""A trial under way: its processes, one for each seed, what they have logged so far, and how they ended."""

import csv
import io
import math
import time
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial

import runs
from config import Config, override
from configuration.command_line import spell_bytes
from experiments.processes.children import Child, last_line
from experiments.processes.training_runs import LOST
from experiments.searching.options import Options
from experiments.searching.queue import run_name
from experiments.searching.space import Space
from experiments.searching.studies import note
from run_store import facts

SPARE_BYTES, SPARE_RATIO = 32 << 20, 1.05


@dataclass
class Job:
    """A trial of this process. Its phases: predicting, waiting (for memory), timing, training."""

    trial: Trial
    flags: dict[str, Any]  # all overrides of the base
    cfg: Config
    seeds: list[int]  # one run for each
    phase: str = "predicting"
    began: float = field(default_factory=time.monotonic)
    prediction: dict[str, Any] = field(default_factory=dict)
    granted_bytes: int = 0  # what its process may hold
    values: list[list[float]] = field(default_factory=list)  # the objectives of the runs that are done
    child: Child | None = None  # the process under way
    seconds: float = 0.0  # of all its processes
    peak_bytes: int = 0
    step_seconds: float | None = None  # measured, if trials get equal time
    reader: "LogReader | None" = None
    reported: int = -1  # the last evaluation that the pruner knows

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def run_name(self) -> str:
        """The saved run of the current seed."""
        again = f"-seed-{self.seeds[len(self.values)]}" if self.values else ""
        return run_name(self.trial.study, self.trial) + again

    @property
    def needed_bytes(self) -> int:
        """What its process may hold if it shares the limit: a little more than was predicted."""
        expected = self.prediction["high_bytes" if self.prediction["allocator"] == "fast" else "low_bytes"]
        return round(expected * SPARE_RATIO) + SPARE_BYTES

    def value(self, column: str) -> float:
        """An objective of the run that has just ended."""
        measured = {"parameters": self.prediction["parameters"], "seconds": self.seconds,
                    "peak_bytes": self.peak_bytes}
        return float(measured[column] if column in measured else self.reader.last[column])

    def ended(self, child: Child, *, on_gpu: bool = False) -> None:
        """Add what is known of a process that has ended; its memory is that `on_gpu`, if it was there."""
        self.child = None
        self.seconds += child.seconds
        held = facts.peak_bytes(runs.MODELS / self.run_name) or 0 if on_gpu else child.peak_bytes
        self.peak_bytes = max(self.peak_bytes, held)


class LogReader:
    """The lines of a run's log.csv, as they are written."""

    def __init__(self, run: str):
        self._path, self._at, self._columns = runs.MODELS / run / "log.csv", 0, None
        self.last: dict[str, float] = {}  # the newest value in each column

    def new_lines(self) -> list[dict[str, float]]:
        """The whole lines since the last call, without empty cells."""
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
    """How a trial's process ended: an outcome and the reason."""

    outcome: str  # done, pruned, invalid, out of memory, crashed, diverged, lost
    reason: str = ""


def ending(job: Job, child: Child, column: str | None) -> Ending:
    """What a child's exit status means."""
    said, status = last_line(child.task.log), child.status
    if status == 0:
        value = job.reader.last.get(column, 0.0) if job.reader and column else 0.0
        return Ending("done") if math.isfinite(value) else Ending("diverged", f"{column} is {value}")
    if child.ended_by == "watchdog":
        return Ending("out of memory", f"it held {spell_bytes(child.peak_bytes)} and was ended: {granted(job)}")
    if child.ended_by == "pruning":
        return Ending("pruned", "worse than the trials before it at the same point")
    match status:
        case 76 | 77:
            return Ending("out of memory", said)
        case 1 if said.startswith("error: step "):
            return Ending("diverged", said.removeprefix("error: "))
        case 2:
            return Ending("invalid", said.removeprefix("error: "))
        case -6 | -9 | -11 if child.peak_bytes > 0.9 * job.granted_bytes:  # some libraries do not check malloc's result
            held = f"ended by signal {-status} at {spell_bytes(child.peak_bytes)}"
            return Ending("out of memory", f"{held}: {granted(job)}")
        case _ if status in LOST:
            return Ending("lost", "its process was ended from outside")
        case _:
            return Ending("crashed", f"exit status {status}: {said}" if said else f"exit status {status}")


def granted(job: Job) -> str:
    return f"{spell_bytes(job.granted_bytes)} were granted, {spell_bytes(job.prediction['low_bytes'])} predicted"


def make_job(trial: Trial, options: Options, space: Space) -> Job:
    """Draw the configuration of a trial. Raises ValueError if it is forbidden or contradicts itself."""
    flags, seed = space.suggest(trial), trial.user_attrs.get("seed", space.base.train.seed)
    note(trial, seed=seed, flags=flags)
    if problem := space.problem(flags):
        raise ValueError(problem)
    count = 1 if "repeat_of" in trial.user_attrs else options.seeds
    return Job(trial, flags, override(space.base, flags | {"train.seed": seed}), list(range(seed, seed + count)))
