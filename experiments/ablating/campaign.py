"""An ablation from its flags to its runs: planned, checked, trained in processes of their own, gone on with."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import runs
from config import Config, override
from corpora.locks import locked
from experiments.ablating.options import Options
from experiments.ablating.plan import Planned, make_plan
from experiments.ablating.variants import flags_line, get, read_values, slug, spell
from experiments.processes.children import Children
from experiments.processes.signals import Stopped
from experiments.processes.training_runs import Trained, is_finished, require_same, train_each
from run_store.atomic_files import write_text

UNSWEPT = ("train.seed", "train.name", "train.steps", "train.batch_size", "train.accumulation")


@dataclass(frozen=True)
class Entry:
    """A run that is to be."""

    name: str
    cfg: Config


@dataclass(frozen=True)
class Outcome:
    """What became of a variant."""

    planned: Planned
    seeds: tuple[int, ...]  # those that count
    runs: tuple[str, ...]  # their runs
    values: tuple[float, ...]  # bits per byte at the end, of the runs that are finished
    failure: str | None  # why not all are
    swept: dict[str, float]  # the swept flag's values -> bits per byte on the first seed; nan where that failed
    chosen: Any = None  # the value that did best there
    missing: int = 0  # runs that are still to be trained


class Interrupted(Stopped):
    """An ablation was told to stop, and there are runs to be compared already."""

    def __init__(self, stopped: Stopped, outcomes: list[Outcome]):
        super().__init__(stopped.number)
        self.outcomes = outcomes  # of what is done so far


def ablate(options: Options, base: Config, say: Callable[[str], object]) -> list[Outcome]:
    """Train what is not trained yet, and tell what came of each variant, the base first.

    `say` is called with a line for each thing that happens. Raises ValueError for what the user can mend, before
    anything is trained, and Stopped after SIGINT or SIGTERM, as Interrupted where there is something to compare.
    """
    sweep, logs = read_sweep(options, base), options.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with locked(options.folder / "lock") as mine, Children.started(logs, threads=options.threads) as children:
        if not mine:
            raise ValueError(f"name={options.name} is being worked on by another process: wait until that has ended")
        return Campaign(options, make_plan(options, base, children), sweep, children, say).run()


class Campaign:
    """The runs of a plan."""

    def __init__(
        self, options: Options, plan: list[Planned], sweep: tuple[str | None, list[Any]], children: Children,
        say: Callable[[str], object],
    ):
        self.options, self.plan, self.children, self.say = options, plan, children, say
        self.flag, self.sweep = sweep
        self.diverged = options.folder / "diverged.json"  # runs that would do so again -> where
        self.failures = {name: reason for name, reason in self.known_to_diverge().items()
                         if (runs.MODELS / name).exists()}
        self.chosen: dict[str, Any] = {}

    def run(self) -> list[Outcome]:
        for planned in self.plan:
            self.say(describe(planned))
        everything = [self.entry(planned, seed, value) for planned in self.plan for value in self.sweep or [None]
                      for seed in (planned.cfg.train.seed, *self.seeds(planned))]
        for entry in everything:
            require_same(entry.cfg)
        if self.sweep:
            self.train([self.entry(planned, planned.cfg.train.seed, value)
                        for value in self.sweep for planned in self.plan])
            self.chosen = {planned.variant.slug: self.best(planned) for planned in self.plan}
        try:
            self.train([self.final(planned, place) for place in range(self.options.seeds) for planned in self.plan
                        if not self.sweep or self.chosen[planned.variant.slug] is not None])
        except Stopped as stopped:
            base, *variants = outcomes = self.outcomes()
            if base.values and any(outcome.values for outcome in variants):
                raise Interrupted(stopped, outcomes) from None
            raise
        return self.outcomes()

    # ---- which runs there are ----

    def seeds(self, planned: Planned) -> range:
        """The seeds that count: not the first, where that has chosen."""
        first = planned.cfg.train.seed + bool(self.sweep)
        return range(first, first + self.options.seeds)

    def final(self, planned: Planned, place: int) -> Entry:
        return self.entry(planned, self.seeds(planned)[place], self.chosen.get(planned.variant.slug))

    def entry(self, planned: Planned, seed: int, value: Any) -> Entry:
        """A run, with a value of the swept flag where one is swept."""
        setting, parts = {}, [self.options.name, planned.variant.slug]
        if value is not None:
            setting = {self.flag: value}
            parts.append(slug(f"{self.flag.removeprefix('train.')}={spell(value)}"))
        name = "-".join([*parts, f"seed-{seed}"])
        return Entry(name, override(planned.cfg, setting | {"train.seed": seed, "train.name": name}))

    # ---- training ----

    def train(self, entries: Sequence[Entry]) -> None:
        """Train the runs that are neither finished nor known to fail."""
        entries = {entry.name: entry.cfg for entry in entries}
        began = time.monotonic()
        waiting = [cfg for name, cfg in entries.items() if name not in self.failures and not is_finished(name)]
        done = len(entries) - len(waiting)
        if done:
            self.say(f"going on: {done} of {len(entries)} runs are there")
        logs = self.options.folder / "logs"
        for trained in train_each(waiting, self.children, jobs=self.options.jobs, folder=logs):
            done += 1
            said = self.ended(trained)
            self.say(f"{time.monotonic() - began:6.0f} s  {done} of {len(entries)}  {trained.name}: {said}")

    def ended(self, trained: Trained) -> str:
        """Note how the training of a run ended, and say it."""
        name, status, said = trained
        if status == 0 and is_finished(name):
            return f"{bits_per_byte(name):.4f} bits per byte"
        self.failures[name] = said
        if status == 1 and said.startswith("step "):
            write_text(self.diverged, json.dumps(self.known_to_diverge() | {name: said}, indent=1) + "\n")
        return said

    def known_to_diverge(self) -> dict[str, str]:
        return json.loads(self.diverged.read_text(encoding="utf-8")) if self.diverged.exists() else {}

    # ---- what came of it ----

    def best(self, planned: Planned) -> Any:
        """The value of the swept flag that did best on the first seed; None where none did anything."""
        found = {value: bits_per_byte(name) for value in self.sweep
                 if is_finished(name := self.entry(planned, planned.cfg.train.seed, value).name)}
        return min(found, key=found.get) if found else None

    def outcomes(self) -> list[Outcome]:
        return [self.outcome(planned) for planned in self.plan]

    def outcome(self, planned: Planned) -> Outcome:
        first, chosen = planned.cfg.train.seed, self.chosen.get(planned.variant.slug)
        tried = {value: self.entry(planned, first, value).name for value in self.sweep}
        swept = {spell(value): bits_per_byte(name) if is_finished(name) else math.nan for value, name in tried.items()}
        if self.sweep and chosen is None:
            return Outcome(planned, (), (), (), f"no value of {self.flag} could be trained: "
                           f"{self.failures[next(iter(tried.values()))]}", swept)
        names = [self.final(planned, place).name for place in range(self.options.seeds)]
        done = [name for name in names if is_finished(name)]
        failed = [self.failures[name] for name in names if name in self.failures and name not in done]
        failure = f"{len(failed)} of {len(names)} runs failed: {failed[0]}" if failed else None
        return Outcome(planned, tuple(self.seeds(planned)), tuple(done), tuple(map(bits_per_byte, done)), failure,
                       swept, chosen, len(names) - len(done) - len(failed))


def read_sweep(options: Options, base: Config) -> tuple[str | None, list[Any]]:
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


def describe(planned: Planned) -> str:
    """A variant and its size, in a line."""
    sized = flags_line(planned.sizing)
    match = "" if planned.match is None else f", match {planned.match - 1:+.2%}"
    return (f"{planned.variant.label}: {planned.parameters:,} parameters, {planned.tokens:,} tokens"
            f"{match}{f', sized by {sized}' if sized else ''}")


def bits_per_byte(name: str) -> float:
    """Of the whole validation part, after the last step."""
    return float(runs.Run(name).log()["bits_per_byte"].dropna().iloc[-1])
