"""The results of the rungs: the loss of each after the same tokens, compared with the rung below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.common.figures import last_value, num_parameters
from experiments.common.intervals import LEVEL, Difference, Interval, holm, mean_interval, welch
from experiments.rungs.definitions import RUNGS, Rung
from runs import Run, saved_runs

VERDICTS = {True: "It helps", False: "It hurts", None: "It makes no difference that could be told from chance"}


@dataclass(frozen=True)
class RungResult:
    """A trained rung, compared with the trained rung below it."""

    rung: Rung
    runs: tuple[Run, ...]  # one for each seed
    values: tuple[float, ...]  # bits per byte of the held-out text after the last step
    parameters: int
    seconds: float  # of a run, the mean over seeds
    flops: float  # of a run
    below: Rung | None  # the rung it is compared with
    change: Difference | None  # in bits per byte; p is corrected for the number of rungs (Holm)
    slower: float | None  # its seconds / those of the rung below

    @property
    def mean(self) -> Interval:
        return mean_interval(self.values)

    @property
    def helps(self) -> bool | None:
        """Whether its loss is lower; None = the difference may be chance."""
        if self.change is None or not self.change.p < LEVEL:
            return None
        return self.change.mean < 0

    def verdict(self) -> str:
        """The comparison in a sentence; "" = there is not a rung below."""
        if self.change is None:
            return ""
        figures = f"{self.change.mean:+.3f} bits per byte against rung {self.below.number}"
        time = f"at {self.slower:.2g} x the seconds"
        if math.isnan(self.change.p):
            return f"By one seed {figures}, {time}."
        figures += f" (95 % interval {self.change.low:+.3f} to {self.change.high:+.3f})"
        return f"{VERDICTS[self.helps]}: {figures}, {time}."


def rung_results(ladder: str = "ladder") -> list[RungResult]:
    """The rungs with finished runs in models/, lowest first.

    Raises ValueError if there are none, or if their texts or numbers of tokens differ.
    """
    found = {rung: runs for rung in RUNGS if (runs := finished(rung, ladder))}
    if not found:
        raise ValueError(f"name={ladder} has no finished rung yet: python experiments/ladder.py trains them")
    require_same_text([run for runs in found.values() for run in runs])
    values = {rung: tuple(last(run, "bits_per_byte") for run in runs) for rung, runs in found.items()}
    rungs = list(found)
    changes = [welch(values[here], values[below]) for below, here in zip(rungs, rungs[1:], strict=False)]
    corrected = holm([change.p for change in changes])
    changes = [None, *(change._replace(p=p) for change, p in zip(changes, corrected, strict=True))]
    seconds = {rung: mean_interval([last(run, "seconds") for run in found[rung]]).mean for rung in rungs}
    return [RungResult(rung, found[rung], values[rung], parameters=num_parameters(found[rung][0].config.model),
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
    """Raise ValueError if runs were trained on different texts or numbers of tokens."""
    for run in runs[1:]:
        for what, ours, theirs in (("text", run.data["name"], runs[0].data["name"]),
                                   ("version of the text", run.data["fingerprint"], runs[0].data["fingerprint"]),
                                   ("number of tokens", last(run, "tokens"), last(runs[0], "tokens"))):
            if ours != theirs:
                raise ValueError(f"{run.name} has another {what} than {runs[0].name} ({ours}, not {theirs}): delete "
                                 "one of them, or use another --name")


def last(run: Run, column: str) -> float:
    """The last value of a column of its log."""
    return last_value(run.log(), column)


def end_of(run: Run) -> str:
    """Its final loss and its time, in a few words."""
    return f"{last(run, 'bits_per_byte'):.3f} bits/byte after {last(run, 'seconds'):,.0f} s"


def floor(results: Sequence[RungResult]) -> float | None:
    """The entropy of the text in bits per byte; None = unknown."""
    return results[0].runs[0].data["floor_bits_per_byte"]


def table(results: Sequence[RungResult]) -> pd.DataFrame:
    """A row for each rung; intervals are half-widths at 95 %."""
    rows = []
    for one in results:
        change, low, high, p = one.change or (None,) * 4
        rows.append({
            "rung": one.rung.number, "adds": one.rung.title, "parameters": one.parameters,
            "bits_per_byte": one.mean.mean, "interval": one.mean.high - one.mean.mean, "change": change,
            "change_low": low, "change_high": high, "p": p, "seconds": one.seconds, "flops": one.flops,
            "seeds": len(one.runs)})
    return pd.DataFrame(rows).set_index("rung")
