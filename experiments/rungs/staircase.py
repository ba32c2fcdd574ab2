"""What the rungs have come to: the loss of each after the same tokens, beside that of the one before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.common.intervals import LEVEL, Difference, Interval, holm, mean_interval, welch
from experiments.rungs.definitions import RUNGS, Rung
from model import Model
from runs import Run, saved_runs


@dataclass(frozen=True)
class RungResult:
    """A rung that was trained, beside the one that was trained before it."""

    rung: Rung
    runs: tuple[Run, ...]  # one for each seed
    values: tuple[float, ...]  # bits per byte of the text held out, after the last step
    parameters: int
    seconds: float  # of a run, the mean over seeds
    flops: float  # of a run
    below: Rung | None  # what it is compared with
    change: Difference | None  # in bits per byte; p is corrected for the number of rungs (Holm)
    slower: float | None  # times the seconds of the one below

    @property
    def mean(self) -> Interval:
        return mean_interval(self.values)

    @property
    def helps(self) -> bool | None:
        """Whether its loss is lower; None = not to be told from chance."""
        if self.change is None or not self.change.p < LEVEL:
            return None
        return self.change.mean < 0

    def verdict(self) -> str:
        """What its loss says, in a sentence; "" = there is nothing below it."""
        if self.change is None:
            return ""
        figures = f"{self.change.mean:+.3f} bits per byte against rung {self.below.number}"
        time = f"at {self.slower:.2g} x the seconds"
        if math.isnan(self.change.p):
            return f"By one seed {figures}, {time}."
        figures += f" (95 % interval {self.change.low:+.3f} to {self.change.high:+.3f})"
        found = {True: "It helps", False: "It hurts", None: "It makes no difference that could be told from chance"}
        return f"{found[self.helps]}: {figures}, {time}."


def rung_results(ladder: str = "ladder") -> list[RungResult]:
    """The rungs that have finished runs in models/, lowest first.

    Raises ValueError where there are none, and where they did not learn from equally many tokens of one text.
    """
    found = {rung: finished(rung, ladder) for rung in RUNGS}
    found = {rung: runs for rung, runs in found.items() if runs}
    if not found:
        raise ValueError(f"name={ladder} has no finished rung yet: python experiments/ladder.py trains them")
    require_same_text([run for runs in found.values() for run in runs])
    values = {rung: tuple(last(run, "bits_per_byte") for run in runs) for rung, runs in found.items()}
    rungs = list(found)
    changes = [welch(values[here], values[below]) for below, here in zip(rungs, rungs[1:], strict=False)]
    fair = holm([change.p for change in changes])
    changes = [None, *(change._replace(p=p) for change, p in zip(changes, fair, strict=True))]
    seconds = {rung: mean_interval([last(run, "seconds") for run in found[rung]]).mean for rung in rungs}
    return [RungResult(rung, found[rung], values[rung], parameters=Model(found[rung][0].config.model).num_parameters(),
                 seconds=seconds[rung], flops=last(found[rung][0], "flops"), below=below, change=change,
                 slower=below and seconds[rung] / seconds[below])
            for rung, below, change in zip(rungs, [None, *rungs[:-1]], changes, strict=True)]


def finished(rung: Rung, ladder: str) -> tuple[Run, ...]:
    """The finished runs of a rung, by seed."""
    first = rung.run_name(ladder)
    names = [name for name in saved_runs() if name == first or name.removeprefix(f"{first}-seed-").isdecimal()]
    runs = sorted(map(Run, names), key=lambda run: run.config.train.seed)
    return tuple(run for run in runs if run.is_finished)


def require_same_text(runs: Sequence[Run]) -> None:
    """Raise ValueError where runs have seen different texts, or different numbers of tokens."""
    for run in runs[1:]:
        for what, ours, theirs in (("text", run.data["name"], runs[0].data["name"]),
                                   ("version of the text", run.data["fingerprint"], runs[0].data["fingerprint"]),
                                   ("number of tokens", last(run, "tokens"), last(runs[0], "tokens"))):
            if ours != theirs:
                raise ValueError(f"{run.name} has another {what} than {runs[0].name} ({ours}, not {theirs}): delete "
                                 "one of them, or use another --name")


def last(run: Run, column: str) -> float:
    """A column's last number in the log."""
    return run.log()[column].dropna().iloc[-1].item()


def floor(steps: Sequence[RungResult]) -> float | None:
    """The entropy of the text in bits per byte; None = unknown."""
    return steps[0].runs[0].data["floor_bits_per_byte"]


def table(steps: Sequence[RungResult]) -> pd.DataFrame:
    """A row for each rung, in numbers; intervals are half-widths at 95 %."""
    return pd.DataFrame([{
        "rung": step.rung.number, "adds": step.rung.title, "parameters": step.parameters,
        "bits_per_byte": step.mean.mean, "interval": step.mean.high - step.mean.mean,
        "change": step.change and step.change.mean, "change_low": step.change and step.change.low,
        "change_high": step.change and step.change.high, "p": step.change and step.change.p,
        "seconds": step.seconds, "flops": step.flops, "seeds": len(step.runs),
    } for step in steps]).set_index("rung")
