"""Trains a mixer on a task for each rate and seed, and says how well it does at its best rate."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from config import Config
from corpora.locks import alone
from experiments.common.figures import last_value
from experiments.common.intervals import Interval, mean_interval
from experiments.probing.cells import Cell, make_cells
from experiments.probing.probe_options import ProbeOptions
from experiments.processes.children import Children
from experiments.processes.signals import Stopped
from experiments.processes.trainer import Say, Trainer
from runs import Run, is_finished
from training.saving import require_same

SOLVED = 0.99  # accuracy
NOTHING = Interval(*[math.nan] * 4, 0)


@dataclass(frozen=True)
class CellOutcome:
    """What a mixer does on a task."""

    cell: Cell
    rates: dict[float, Interval]  # the accuracy at each rate
    rate: float | None  # the best one; None = no run has finished
    runs: tuple[str, ...]  # the finished ones at this rate
    accuracy: dict[int, Interval]  # of these, by the length of rows in lengths of the training
    solved_at: tuple[int, ...]  # of the runs that reach SOLVED, the step of the first evaluation that says so
    missing: int  # runs that are still to be trained
    failure: str | None  # why some did not finish


def probe(
    options: ProbeOptions, base: Config, plain: Config, say: Say,
) -> tuple[list[CellOutcome], Stopped | None]:
    """Train what is not trained yet, and return the outcome of each mixer on each task.

    `say` is called with a line for each event. After SIGINT or SIGTERM the second result is the Stopped to raise, if a
    run is there already; else it is raised. Raises ValueError for mistakes, before any training.
    """
    cells, stopped = make_cells(options, base, plain), None
    for cell in cells:
        say(f"{cell.mixer} on {cell.task}: {cell.parameters:,} parameters, a state of {cell.state_bytes:,.0f} bytes a "
            "layer")
        for cfg in cell.runs.values():
            require_same(cfg, "--name")
    logs = options.folder / "logs"
    with alone(options.folder, options.name), Children.started(logs, threads=options.threads) as children:
        trainer = Trainer(options.folder, children, jobs=options.jobs, say=say,
                          result=lambda name: f"accuracy {final(name, 'accuracy'):.1%}")
        try:
            keys = sorted({key for cell in cells for key in cell.swept}, key=lambda key: key[::-1])  # seed by seed
            trainer.train([cell.runs[key] for key in keys for cell in cells])
            trainer.train([cfg for cell in cells for key, cfg in planned(cell).items() if key not in cell.swept])
        except Stopped as stop:
            stopped = stop
    outcomes = [outcome(cell, trainer.failures) for cell in cells]
    if stopped and not any(found.runs for found in outcomes):
        raise stopped
    return outcomes, stopped


def final(name: str, column: str) -> float:
    """The last value of a column of a run's log."""
    return last_value(Run(name).log(), column)


def outcome(cell: Cell, failures: Mapping[str, str]) -> CellOutcome:
    """The outcome so far; `failures` holds the reasons by the runs' names.

    The best rate is that of best_rate.
    """
    done, runs = finished(cell, cell.runs), planned(cell)
    rates = {rate: interval(names, "accuracy") for rate, names in done.items()}
    best = best_rate(cell)
    names = done[best]
    columns = {1: "accuracy"} | {factor: f"accuracy_{factor}x" for factor in cell.longer}
    failed = [failures[cfg.train.name] for cfg in runs.values() if cfg.train.name in failures]
    ended = {*failures, *(name for at_rate in done.values() for name in at_rate)}
    return CellOutcome(
        cell, rates, best if names else None, tuple(names),
        {factor: interval(names, column) for factor, column in columns.items()},
        tuple(step for step in map(solved_at, names) if step is not None),
        sum(cfg.train.name not in ended for cfg in runs.values()),
        f"{len(failed)} of {len(runs)} runs failed: {failed[0]}" if failed else None)


def finished(cell: Cell, among: Iterable[tuple[float, int]]) -> dict[float, list[str]]:
    """The names of those runs that have finished, at each rate."""
    done: dict[float, list[str]] = {rate: [] for rate, _ in cell.runs}
    for rate, seed in among:
        name = cell.runs[rate, seed].train.name
        done[rate] += [name] * is_finished(name)
    return done


def best_rate(cell: Cell) -> float:
    """The rate of the highest mean accuracy over the seeds that try every rate, of those with most of them finished."""
    means = {rate: interval(names, "accuracy") for rate, names in finished(cell, sorted(cell.swept)).items()}
    return max(means, key=lambda rate: (means[rate].count, means[rate].mean))


def planned(cell: Cell) -> dict[tuple[float, int], Config]:
    """The runs of all rates and the seeds that try them, and of all seeds at the rate that is best so far."""
    best = best_rate(cell)
    return {key: cfg for key, cfg in cell.runs.items() if key in cell.swept or key[0] == best}


def interval(names: list[str], column: str) -> Interval:
    """The mean of a column's last values, with its interval."""
    return mean_interval([final(name, column) for name in names]) if names else NOTHING


def solved_at(name: str) -> int | None:
    """The first step at which a run's validation accuracy is SOLVED; None = at no one."""
    log = Run(name).log()
    steps = log.step[log.accuracy >= SOLVED]
    return None if steps.empty else int(steps.iloc[0])


def result_table(outcomes: list[CellOutcome]) -> pd.DataFrame:
    """A row for each mixer and task; accuracies are fractions, nan = not known."""
    rows = []
    for found in outcomes:
        cell = found.cell
        row = {"task": cell.task, "mixer": cell.mixer, "rate": found.rate, "runs": len(found.runs), "guess": cell.guess}
        for factor, one in found.accuracy.items():
            column = "accuracy" if factor == 1 else f"accuracy_{factor}x"
            row |= {column: one.mean, f"{column}_low": one.low, f"{column}_high": one.high}
        row |= {"solved": len(found.solved_at),
                "solved_at": pd.Series(found.solved_at, dtype=float).median(), "length": cell.length,
                "parameters": cell.parameters, "state_bytes": cell.state_bytes}
        rows.append(row | {f"accuracy_at_{rate:g}": one.mean for rate, one in found.rates.items()})
    return pd.DataFrame(rows)
