"""Runs an ablation: plans it, checks it, trains each run in a process of its own, continues what was interrupted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import Config, get, override
from corpora.locks import alone
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.plan import Planned, make_plan
from experiments.ablating.variants import flags_line, read_values, slug, spell
from experiments.common.figures import last_value
from experiments.processes.children import Children
from experiments.processes.signals import Stopped
from experiments.processes.trainer import Say, Trainer
from runs import Run, is_finished
from training.saving import require_same

UNSWEPT = ("train.seed", "train.name", "train.steps", "train.batch_size", "train.accumulation")


@dataclass(frozen=True)
class VariantOutcome:
    """The result of a variant."""

    planned: Planned
    seeds: tuple[int, ...]  # those that count
    runs: tuple[str, ...]  # the finished runs
    values: tuple[float, ...]  # their final bits per byte
    failure: str | None  # why some did not finish
    swept: dict[str, float]  # value of the swept flag -> bits per byte on the first seed; nan if that run failed
    chosen: Any = None  # the best of these values
    missing: int = 0  # runs that are still to be trained


class VariantRuns:
    """Names, seeds and configurations of the runs of an ablation. Raises ValueError for a sweep that cannot be."""

    def __init__(self, options: AblationOptions, base: Config):
        self.options = options
        self.flag, self.sweep = read_sweep(options, base)
        self.chosen: dict[str, Any] = {}  # slug of a variant -> its value of the swept flag; None if all failed

    def seeds(self, planned: Planned) -> range:
        """The seeds that count: without the first one, if that chooses the value of the swept flag."""
        first = planned.cfg.train.seed + bool(self.sweep)
        return range(first, first + self.options.seeds)

    def all(self, planned: Planned) -> list[Config]:
        """Every run that may be trained."""
        return [self.config(planned, seed, value) for value in self.sweep or [None]
                for seed in (planned.cfg.train.seed, *self.seeds(planned))]

    def final(self, planned: Planned, place: int) -> Config | None:
        """The run of a seed that counts; None if no value of the swept flag could be trained."""
        value = self.chosen.get(planned.variant.slug)
        return None if self.sweep and value is None else self.config(planned, self.seeds(planned)[place], value)

    def first(self, planned: Planned) -> dict[Any, Config]:
        """The runs on the first seed by the value of the swept flag."""
        return {value: self.config(planned, planned.cfg.train.seed, value) for value in self.sweep}

    def config(self, planned: Planned, seed: int, value: Any) -> Config:
        """The configuration of a run, with a value of the swept flag if there is one."""
        setting, parts = {}, [self.options.name, planned.variant.slug]
        if value is not None:
            setting = {self.flag: value}
            parts.append(slug(f"{self.flag.removeprefix('train.')}={spell(value)}"))
        name = "-".join([*parts, f"seed-{seed}"])
        return override(planned.cfg, setting | {"train.seed": seed, "train.name": name})

    def choose(self, planned: Planned) -> None:
        """Choose the value of the swept flag that is best on the first seed."""
        found = {value: bits_per_byte(cfg.train.name) for value, cfg in self.first(planned).items()
                 if is_finished(cfg.train.name)}
        self.chosen[planned.variant.slug] = min(found, key=found.get) if found else None

    def outcome(self, planned: Planned, failures: Mapping[str, str]) -> VariantOutcome:
        """The outcome so far; `failures` holds the reasons by the runs' names."""
        tried, chosen = self.first(planned), self.chosen.get(planned.variant.slug)
        swept = {spell(value): bits_per_byte(cfg.train.name) if is_finished(cfg.train.name) else math.nan
                 for value, cfg in tried.items()}
        if self.sweep and chosen is None:
            reason = failures[next(iter(tried.values())).train.name]
            return VariantOutcome(planned, (), (), (), f"no value of {self.flag} could be trained: {reason}", swept)
        names = [self.final(planned, place).train.name for place in range(self.options.seeds)]
        done = [name for name in names if is_finished(name)]
        failed = [failures[name] for name in names if name in failures and name not in done]
        failure = f"{len(failed)} of {len(names)} runs failed: {failed[0]}" if failed else None
        return VariantOutcome(planned, tuple(self.seeds(planned)), tuple(done), tuple(map(bits_per_byte, done)),
                              failure, swept, chosen, len(names) - len(done) - len(failed))


def read_sweep(options: AblationOptions, base: Config) -> tuple[str | None, list[Any]]:
    """The swept flag and its values. Raises ValueError."""
    if options.sweep is None:
        return None, []
    flag, values = read_values(options.sweep, base)
    if not flag.startswith("train.") or flag in UNSWEPT:
        raise ValueError(f"sweep={options.sweep}: {flag} cannot be swept: use a flag of the training that leaves the "
                         "tokens as they are, e.g. train.lr")
    values = [get(override(base, {flag: value}), flag) for value in values]
    if None in values:
        raise ValueError(f"sweep={options.sweep} has None among its values, which cannot be swept: vary it with --vary")
    if len(set(values)) < 2:
        raise ValueError(f"sweep={options.sweep} has one value, and nothing to choose: give two or more")
    return flag, list(dict.fromkeys(values))


def bits_per_byte(name: str) -> float:
    """The final loss of a run on the whole validation part."""
    return last_value(Run(name).log(), "bits_per_byte")


def ablate(options: AblationOptions, base: Config, say: Say) -> tuple[list[VariantOutcome], Stopped | None]:
    """Train what is not trained yet, and return the outcome of each variant, the base first.

    `say` is called with a line for each event. After SIGINT or SIGTERM the second result is the Stopped to raise, if
    there is something to compare already; else it is raised. Raises ValueError for mistakes, before any training.
    """
    variant_runs, logs = VariantRuns(options, base), options.folder / "logs"
    with alone(options.folder, options.name), Children.started(logs, threads=options.threads) as children:
        return AblationRunner(options, make_plan(options, base, children), variant_runs, children, say).run()


class AblationRunner:
    """Trains the runs of a plan."""

    def __init__(
        self, options: AblationOptions, plan: list[Planned], variant_runs: VariantRuns, children: Children, say: Say,
    ):
        self.options, self.plan, self.runs, self.say = options, plan, variant_runs, say
        self.trainer = Trainer(options.folder, children, jobs=options.jobs, say=say,
                               result=lambda name: f"{bits_per_byte(name):.4f} bits per byte")

    def run(self) -> tuple[list[VariantOutcome], Stopped | None]:
        for planned in self.plan:
            self.say(describe(planned))
        for planned in self.plan:
            for cfg in self.runs.all(planned):
                require_same(cfg, "--name")
        if self.runs.sweep:
            first = [self.runs.first(planned) for planned in self.plan]
            self.trainer.train([configs[value] for value in self.runs.sweep for configs in first])
            for planned in self.plan:
                self.runs.choose(planned)
        stopped, seeds = None, range(self.options.seeds)
        try:
            self.trainer.train([cfg for place in seeds for planned in self.plan
                                if (cfg := self.runs.final(planned, place))])
        except Stopped as stop:
            stopped = stop
        base, *variants = outcomes = [self.runs.outcome(planned, self.trainer.failures) for planned in self.plan]
        if stopped and not (base.values and any(outcome.values for outcome in variants)):
            raise stopped
        return outcomes, stopped


def describe(planned: Planned) -> str:
    """A variant and its size, in a line."""
    sized = flags_line(planned.sizing)
    match = "" if math.isnan(planned.match) else f", match {planned.match - 1:+.2%}"
    return (f"{planned.variant.label}: {planned.parameters:,} parameters, {planned.tokens:,} tokens"
            f"{match}{f', sized by {sized}' if sized else ''}")
