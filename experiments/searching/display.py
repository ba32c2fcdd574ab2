"""A search as it goes: a live table on a terminal or in a notebook, or plain lines if the output is neither."""

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.trial import TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from configuration.command_line import print_line, printable
from experiments.searching.jobs import Job
from experiments.searching.loop import Snapshot
from experiments.searching.options import Options
from experiments.searching.outcomes import outcome

EVERY_SECONDS = 0.5  # in a notebook
WIDTH = 110  # characters, in a notebook


@contextmanager
def showing(console: Console, options: Options) -> Iterator[Callable[[Snapshot], None]]:
    """Give a function that shows a snapshot."""
    if not console.is_terminal:
        yield Lines(console, options)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda snapshot: live.update(picture(snapshot, options))


class Lines:
    """Print one line for each trial that has ended."""

    def __init__(self, console: Console, options: Options):
        self._console, self._options = console, options
        self._told: set[int] | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.study is None:
            return
        finished = [trial for trial in snapshot.study.get_trials(deepcopy=False) if trial.state.is_finished()]
        if self._told is None:
            self._told = {trial.number for trial in finished}
            if finished:
                print_line(self._console, f"going on with {snapshot.study.study_name}: {counts_line(snapshot.counts)}")
        for trial in finished:
            if trial.number in self._told:
                continue
            self._told.add(trial.number)
            found, said = outcome(trial), trial.user_attrs.get("reason", "")
            if found in ("done", "repeat"):
                said = values_line(self._options, trial.values)
            flags = flags_line(trial.user_attrs.get("flags", {}))
            print_line(self._console, f"{snapshot.seconds:6.0f} s  trial {trial.number:4}  {found}: {said}  {flags}")


class LiveTable:
    """For `search(..., on_change=LiveTable(options))` in a notebook: each snapshot replaces the one before."""

    def __init__(self, options: Options):
        from IPython.display import HTML, display  # takes half a second, which a terminal does not need

        self._options, self._drawn, self._html = options, -math.inf, HTML
        self._place = display(HTML(""), display_id=True)

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.running and now - self._drawn < EVERY_SECONDS:
            return
        self._drawn = now
        console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False)
        console.print(picture(snapshot, self._options))
        self._place.update(self._html(console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")))


def picture(snapshot: Snapshot, options: Options) -> Group:
    """The trials under way, the best so far, and the number of trials with each outcome."""
    if snapshot.study is None:
        return Group("reading the text ...")
    table = Table("trial", "phase", "seconds", "step", options.objective[0], "MB", "flags", box=None)
    for job in snapshot.running:
        table.add_row(*(Text(printable(cell)) for cell in row(job, options)))
    parts = [table, Text(counts_line(snapshot.counts) or "no trial has ended yet")]
    done = [trial for trial in snapshot.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.user_attrs.get("outcome") == "done"]
    if done and len(options.objective) == 1:
        best = (min if options.directions == ["minimize"] else max)(done, key=lambda trial: trial.value)
        parts.append(Text(f"best: trial {best.number}, {values_line(options, best.values)}  "
                          f"{flags_line(best.user_attrs['flags'])}"))
    left = "" if options.budget_seconds is None else f" of {options.budget_seconds:,.0f}"
    return Group(*parts, Text(f"{snapshot.seconds:,.0f}{left} s, {options.name}"))


def row(job: Job, options: Options) -> list[str]:
    last = job.reader.last if job.reader else {}
    value = last.get(options.objective[0])
    steps = f"{last.get('step', 0):.0f} / {job.cfg.train.steps}" if job.phase == "training" else ""
    return [str(job.number), job.phase, f"{time.monotonic() - job.began:.0f}", steps,
            "" if value is None else f"{value:.4f}", f"{job.granted_bytes / 1e6:,.0f}" if job.granted_bytes else "",
            flags_line(job.flags)]


def counts_line(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def values_line(options: Options, values: list[float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in zip(options.objective, values, strict=True))


def flags_line(flags: dict[str, Any]) -> str:
    """The flags without their sections, numbers with three digits."""
    shown = {name.partition(".")[2]: value for name, value in flags.items()}
    return " ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in shown.items())
