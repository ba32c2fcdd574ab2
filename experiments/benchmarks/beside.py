"""Ours beside others: calls in turns, ratios of a round, a table of each cell, and files that keep the times."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass
from rich.console import Console
from rich.table import Table

from configuration.checked import CHECKED
from configuration.reading import Count, checked, read_text
from run_store.atomic_files import write_text

OURS = "ours"
WARM_UP = 2  # rounds that do not count
Kind = Literal["passed", "busy"]  # of seconds, see Took
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rounds = Annotated[list[Seconds], Field(min_length=1, max_length=10_000)]


@dataclass(frozen=True, config=CHECKED)
class Times:
    """The seconds of each round, see Took."""

    passed: Rounds
    busy: Rounds


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Cell:
    """What was measured with one setting, of ours and of others by name."""

    name: str
    tokens: Count  # of a call
    limit: Seconds  # that a call takes at least
    machine: str  # how fast it is, in words
    by: Kind  # the seconds whose ratios count
    parameters: dict[str, Count]
    times: dict[str, Times]

    def ratios(self, other: str) -> list[float]:
        """How many times as fast ours is, in each round."""
        ours, theirs = (getattr(self.times[name], self.by) for name in (OURS, other))
        return [b / a for a, b in zip(ours, theirs, strict=True)]

    @property
    def others(self) -> list[str]:
        return [name for name in self.times if name != OURS]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Kept:
    """A file of --json."""

    benchmark: Literal["train", "generate"]
    torch: str
    cells: list[Cell]


class Change(NamedTuple):
    """A median ratio of an earlier file, and whether all of now's are above or below all of then's."""

    before: float
    verdict: Literal["faster", "slower", ""]


# ---- measuring ----


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, Times]:
    """The times of each call, which take turns in each round."""
    found = {name: ([], []) for name in calls}
    for number in range(-WARM_UP, rounds):
        for name, call in calls.items():
            seconds = timed(call, device)
            if number >= 0:
                for kept, value in zip(found[name], seconds, strict=True):
                    kept.append(value)
    return {name: Times(*both) for name, both in found.items()}


class Took(NamedTuple):
    """The seconds of a call: those that passed until all was done, and those of the processor, or of a GPU."""

    passed: float
    busy: float


def timed(call: Callable[[], object], device: torch.device) -> Took:
    if device.type == "cuda":
        return timed_on_gpu(call, device)
    synchronise(device)
    began, busy = time.perf_counter(), time.process_time()
    call()
    synchronise(device)
    return Took(time.perf_counter() - began, time.process_time() - busy)


def timed_on_gpu(call: Callable[[], object], device: torch.device) -> Took:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    synchronise(device)
    began = time.perf_counter()
    begin.record()
    call()
    end.record()
    synchronise(device)
    return Took(time.perf_counter() - began, begin.elapsed_time(end) / 1e3)  # it says milliseconds


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def counted(device: torch.device, threads: int) -> Kind:
    """Other programs do not change the processor time of one thread; threads that wait for each other take it too."""
    return "busy" if device.type == "cpu" and threads == 1 else "passed"


def counted_alone(device: torch.device, threads: int) -> Kind:
    """The seconds of a single operation: on a GPU without those in which it waits to be told."""
    return "busy" if device.type == "cuda" else counted(device, threads)


# ---- options ----


def require_some(options: Any) -> None:
    """Raise ValueError if a number of a benchmark's flags is below 1, or nothing is given to choose from."""
    for name, value in vars(options).items():
        flag = f"--{name.replace('_', '-')}"
        if value == ():
            raise ValueError(f"{flag} has no value: give one, or leave it out")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{flag} {number} is too small: use 1 or more")


# ---- files ----


class Book:
    """The cells of a run of a benchmark: printed, compared with an earlier file, and kept.

    Raises ValueError if the new file is there already or its folder is not, or if the earlier one cannot be read or
    has no cell of those that are coming.
    """

    def __init__(self, benchmark: str, names: Sequence[str], *, new: str | None, old: str | None, console: Console):
        self.benchmark, self.console, self.cells, self.is_slower = benchmark, console, [], False
        self.path = free_path(new)
        self.before = earlier(Path(old), benchmark, names) if old is not None else {}

    def add(self, cell: Cell) -> None:
        """Print a cell, and write the file anew."""
        self.cells.append(cell)
        found = {name: change(cell.ratios(name), self.before[cell.name].ratios(name)) for name in cell.others
                 if cell.name in self.before and name in self.before[cell.name].times}
        self.is_slower |= any(change.verdict == "slower" for change in found.values())
        self.console.print(table_of(cell, found))
        if self.path is not None:
            kept = Kept(benchmark=self.benchmark, torch=torch.__version__, cells=self.cells)
            write_text(self.path, json.dumps(asdict(kept), indent=1) + "\n")


def free_path(name: str | None, flag: str = "--json") -> Path | None:
    """The path of a new file. Raises ValueError if it cannot be written, before anything is measured."""
    if name is None:
        return None
    path = Path(name)
    if path.exists():
        raise ValueError(f"{flag} {name} is there already: give another name")
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {name}: there is no folder {path.parent}")
    return path


def kept_in(path: Path) -> Kept:
    """What a file of --json holds. Raises ValueError if it is none."""
    text = read_text(path)
    with checked(path.name):
        kept = TypeAdapter(Kept).validate_json(text, strict=True)
    for cell in kept.cells:
        require_whole(cell, path.name)
    return kept


def earlier(path: Path, benchmark: str, names: Iterable[str]) -> dict[str, Cell]:
    """The cells of a kept file that are measured again, by name. Raises ValueError if there are none."""
    kept = kept_in(path)
    cells = {cell.name: cell for cell in kept.cells if cell.name in names}
    if kept.benchmark != benchmark or not cells:
        raise ValueError(f"--against {path.name} has nothing that is measured now: give the flags it was made with")
    return cells


def require_whole(cell: Cell, name: str) -> None:
    """Raises ValueError if a cell that was read has no times of ours, or of some rounds only."""
    counts = {len(seconds) for times in cell.times.values() for seconds in (times.passed, times.busy)}
    if OURS not in cell.times or len(counts) != 1:
        raise ValueError(f"{name} cannot be read: it has a cell without as many times of {OURS} as of the others")


def change(now: Sequence[float], then: Sequence[float]) -> Change:
    """Compare the ratios of two runs."""
    verdict = "faster" if min(now) > max(then) else "slower" if max(now) < min(then) else ""
    return Change(statistics.median(then), verdict)


# ---- tables ----


def table_of(cell: Cell, changes: Mapping[str, Change]) -> Table:
    """A row for each library: the medians of its times, and how many times as fast ours is."""
    table = Table("library", "parameters", "ms", "ms busy", "tokens/s", "of the limit", "ours is x faster",
                  "least to most", *["before", "now"][:2 * bool(changes)], title_justify="left",
                  title=f"{cell.name}; {cell.machine}")
    for name, times in cell.times.items():
        passed, busy = (statistics.median(seconds) for seconds in (times.passed, times.busy))
        counts = statistics.median(getattr(times, cell.by))
        ratios = cell.ratios(name)
        compared = ("", "") if name == OURS else (f"{statistics.median(ratios):.2f}",
                                                  f"{min(ratios):.2f} to {max(ratios):.2f}")
        before = (f"{changes[name].before:.2f}", changes[name].verdict) if name in changes else ()
        table.add_row(name, f"{cell.parameters[name]:,}", f"{1e3 * passed:,.1f}", f"{1e3 * busy:,.1f}",
                      f"{cell.tokens / counts:,.0f}", f"{cell.limit / counts:.0%}", *compared, *before)
    return table
