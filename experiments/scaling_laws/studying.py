"""Trains the runs of a scaling study, and gathers the losses of those that have finished."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from config import Config
from corpora.locks import alone
from experiments.common.figures import last_value
from experiments.processes.children import Children
from experiments.processes.signals import Stopped
from experiments.processes.trainer import Say, Trainer
from experiments.scaling_laws.grid import Grid, Planned, Size
from experiments.scaling_laws.scaling_options import ScalingOptions
from runs import Run, is_finished
from training.saving import require_same


@dataclass(frozen=True)
class Study:
    """What a scaling study has found so far."""

    sizes: list[Size]
    rates: dict[str, float]  # the learning rate of each size, by its label
    rate_power: float | None  # of the width in these rates; None = they were given
    swept: dict[float, float]  # rate -> bits per byte of the sweep; those that failed are missing
    points: pd.DataFrame  # a row for each finished run, see `point`
    missing: list[Planned]  # runs that are still to be trained
    failures: dict[str, str]  # why runs have failed, by their names
    data: dict  # what the runs say of their text
    entropy: float | None  # of the held-out text in bits per byte, if all of it is predicted; None = not known


def study(options: ScalingOptions, base: Config, plain: Config, say: Say) -> tuple[Study, Stopped | None]:
    """Train what is not trained yet, and return the losses of all runs.

    `say` is called with a line for each event. After SIGINT or SIGTERM the second result is the Stopped to raise, if a
    run of the grid is there already; else it is raised. Raises ValueError for mistakes, before any training, if nothing
    could be trained, or if the text has changed since runs were trained.
    """
    grid, stopped, logs = Grid(options, base, plain), None, options.folder / "logs"
    for size in grid.sizes:
        say(f"{size.label}: {size.parameters:,} parameters in matrices and the head, {size.flops:,.0f} FLOPs a token")
    with alone(options.folder, options.name), Children.started(logs, threads=options.threads) as children:
        trainer = Trainer(options.folder, children, jobs=options.jobs, say=say,
                          result=lambda name: f"{bits_per_byte(name):.4f} bits per byte")
        swept = sweep(grid, trainer)
        rate = min(swept, key=swept.get) if swept else None
        planned = grid.runs(rate)
        for run in planned:
            require_same(run.cfg, "--name")
        try:
            trainer.train([run.cfg for run in planned])
        except Stopped as stop:
            stopped = stop
    if not any(is_finished(run.name) for run in planned):
        raise stopped or ValueError(f"no run could be trained: {next(iter(trainer.failures.values()))}")
    return gather(grid, rate, swept, planned, trainer.failures), stopped


def gather(
    grid: Grid, rate: float | None, swept: dict[float, float], planned: list[Planned], reasons: Mapping[str, str],
) -> Study:
    """The study so far; `rate` is the best of the sweep, `reasons` say why runs have failed."""
    done = [run for run in planned if is_finished(run.name)]
    failures = {run.name: reasons[run.name] for run in planned if run.name in reasons}
    missing = [run for run in planned if run not in done and run.name not in failures]
    data = common_data(done)
    return Study(grid.sizes, grid.rates(rate), None if grid.options.rates else grid.rate_power, swept,
                 pd.DataFrame(map(point, done)), missing, failures, data,
                 None if done[0].cfg.facts.of else data["floor_bits_per_byte"])


def sweep(grid: Grid, trainer: Trainer) -> dict[float, float]:
    """Train the runs of the sweep; their losses by their rates. Raises ValueError if none has finished."""
    planned = grid.sweep()
    for run in planned.values():
        require_same(run.cfg, "--name")
    trainer.train([run.cfg for run in planned.values()])
    found = {rate: bits_per_byte(run.name) for rate, run in planned.items() if is_finished(run.name)}
    if planned and not found:
        first = next(iter(planned.values())).name
        raise ValueError(f"no rate of the sweep could be trained: {trainer.failures[first]}")
    return found


def bits_per_byte(name: str) -> float:
    """The loss of a run after its last step."""
    return last_value(Run(name).log(), "bits_per_byte")


def point(run: Planned) -> dict[str, object]:
    """A finished run: its size, what it has learned from, and its loss."""
    log = Run(run.name).log()
    return {"size": run.size.label, "parameters": run.size.parameters, "for_tokens": run.tokens, "seed": run.seed,
            "tokens": int(last_value(log, "tokens")), "flops": last_value(log, "flops"),
            "bits_per_byte": last_value(log, "bits_per_byte"), "seconds": last_value(log, "seconds"), "run": run.name,
            **{name: getattr(run.cfg.train, name) for name in ("lr", "batch_size", "steps")}}


def common_data(runs: list[Planned]) -> dict:
    """What the runs say of their text. Raises ValueError if they have learned from different ones."""
    first, *others = (Run(run.name) for run in runs)
    for other in others:
        if other.data["fingerprint"] != first.data["fingerprint"]:
            raise ValueError(f"{other.name} has another version of the text than {first.name}: delete one of them, or "
                             "use another --name")
    return first.data
