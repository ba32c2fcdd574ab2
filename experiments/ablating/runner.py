"""Runs an ablation: plans it, checks it, trains each run in a process of its own, continues what was interrupted."""

import json
import math
import time
from collections.abc import Callable, Sequence

import runs
from config import Config
from corpora.locks import locked
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.plan import Planned, make_plan
from experiments.ablating.variant_runs import VariantOutcome, VariantRuns, bits_per_byte
from experiments.ablating.variants import flags_line
from experiments.processes.children import Children
from experiments.processes.signals import Stopped
from experiments.processes.training_runs import Trained, is_finished, require_same, train_each
from run_store.atomic_files import write_text

Say = Callable[[str], object]


def ablate(options: AblationOptions, base: Config, say: Say) -> tuple[list[VariantOutcome], Stopped | None]:
    """Train what is not trained yet, and return the outcome of each variant, the base first.

    `say` is called with a line for each event. After SIGINT or SIGTERM the second result is the Stopped to raise, if
    there is something to compare already; else it is raised. Raises ValueError for mistakes, before any training.
    """
    variant_runs, logs = VariantRuns(options, base), options.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with locked(options.folder / "lock") as mine, Children.started(logs, threads=options.threads) as children:
        if not mine:
            raise ValueError(f"name={options.name} is being worked on by another process: wait until that has ended")
        return AblationRunner(options, make_plan(options, base, children), variant_runs, children, say).run()


class AblationRunner:
    """Trains the runs of a plan."""

    def __init__(
        self, options: AblationOptions, plan: list[Planned], variant_runs: VariantRuns, children: Children, say: Say,
    ):
        self.options, self.plan, self.runs, self.children, self.say = options, plan, variant_runs, children, say
        self.file = options.folder / "diverged.json"
        known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.diverged = {name: reason for name, reason in known.items() if (runs.MODELS / name).exists()}
        self.failures = dict(self.diverged)  # these would diverge again

    def run(self) -> tuple[list[VariantOutcome], Stopped | None]:
        for planned in self.plan:
            self.say(describe(planned))
        for planned in self.plan:
            for cfg in self.runs.all(planned):
                require_same(cfg)
        if self.runs.sweep:
            first = [self.runs.first(planned) for planned in self.plan]
            self.train([configs[value] for value in self.runs.sweep for configs in first])
            for planned in self.plan:
                self.runs.choose(planned)
        stopped, seeds = None, range(self.options.seeds)
        try:
            self.train([cfg for place in seeds for planned in self.plan if (cfg := self.runs.final(planned, place))])
        except Stopped as stop:
            stopped = stop
        base, *variants = outcomes = [self.runs.outcome(planned, self.failures) for planned in self.plan]
        if stopped and not (base.values and any(outcome.values for outcome in variants)):
            raise stopped
        return outcomes, stopped

    def train(self, configs: Sequence[Config]) -> None:
        """Train those that are neither finished nor known to fail; continue what was ended from outside."""
        configs = {cfg.train.name: cfg for cfg in configs}
        waiting = [cfg for name, cfg in configs.items() if name not in self.failures and not is_finished(name)]
        began, done, logs = time.monotonic(), len(configs) - len(waiting), self.options.folder / "logs"
        if done:
            self.say(f"going on: {done} of {len(configs)} runs are there")
        for trained in train_each(waiting, self.children, jobs=self.options.jobs, folder=logs):
            done += 1
            said = self.ended(trained)
            self.say(f"{time.monotonic() - began:6.0f} s  {done} of {len(configs)}  {trained.name}: {said}")

    def ended(self, trained: Trained) -> str:
        """Note how the training of a run ended, and return a description."""
        name, status, said = trained
        if status == 0 and is_finished(name):
            return f"{bits_per_byte(name):.4f} bits per byte"
        self.failures[name] = said
        if status == 1 and said.startswith("step "):
            self.diverged[name] = said
            write_text(self.file, json.dumps(self.diverged, indent=1) + "\n")
        return said


def describe(planned: Planned) -> str:
    """A variant and its size, in a line."""
    sized = flags_line(planned.sizing)
    match = "" if math.isnan(planned.match) else f", match {planned.match - 1:+.2%}"
    return (f"{planned.variant.label}: {planned.parameters:,} parameters, {planned.tokens:,} tokens"
            f"{match}{f', sized by {sized}' if sized else ''}")
