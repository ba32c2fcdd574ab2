"""The options of a search."""

import math
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from config import CHECKED, Names, parse_bytes, parse_seconds
from configuration.checks import require_folder_name, require_not_negative, require_positive
from run_store.listing import COLUMNS, RESULTS

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"]
Pruner = Literal["median", "hyperband", "wilcoxon", "none"]
MEASURED = ("parameters", "seconds", "peak_bytes")  # objectives that are no columns of the log
MORE_IS_BETTER = {"accuracy", "tokens_per_second"}
TRIALS = 50  # of a search that is told neither how many nor how long
EVALUATIONS = 10  # of each trial; what a pruner goes by


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Options:
    """A search; the flags after these are the base configuration's."""

    space: Path  # a .yaml file, or a .py file that defines SPACE
    study: str | None = None  # name of the study and of its runs; None = the space's file name
    storage: str | None = None  # a journal's file (one machine), or a database's URL (PostgreSQL and MySQL: many machines); None = experiments/results/STUDY/journal.log
    ram_limit: str | None = None  # memory that all trials together may hold, on GPUs those of each, e.g. 2GB; None = 90 % of what is free at the start, or of a GPU's memory
    trials: int | None = None  # trials that are trained, in the whole study; 0 = only write the report; None = 50, or with a budget as many as it allows
    budget: str | None = None  # stop after this time: 90s, 20m or 1.5h; None = never
    jobs: int = 1  # trials at a time
    threads: int = 1  # of each trial
    sampler: Sampler = "tpe"  # draws the configurations
    pruner: Pruner | None = None  # ends hopeless trials early; wilcoxon goes by seeds, from the fourth on. None = median for one objective with tpe, random, grid or qmc, else none
    objective: Names = ("bits_per_byte",)  # columns of the log (their last value), parameters, seconds or peak_bytes; several = the Pareto front
    on_exceed: Literal["skip", "shrink"] = "skip"  # skip a configuration that does not fit, or give it a smaller batch with accumulation, then checkpointed activations
    trial_seconds: float | None = None  # training time of every trial, without evaluations: its steps follow from its speed
    trial_tokens: int | None = None  # tokens of every trial: its steps follow from its batch
    seeds: int = 1  # runs of each trial, with seeds from train.seed on; the trial's value is their mean
    repeat_best: int = 0  # how many of the best are repeated at the end
    repeat_seeds: int = 2  # further seeds of each repeat
    seed: int = 0  # of the sampler

    @property
    def name(self) -> str:
        return self.study or self.space.stem

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    @property
    def settled_storage(self) -> str:
        """The database's URL or the journal's path, also if storage=None."""
        return self.storage or str(self.folder / "journal.log")

    @property
    def budget_seconds(self) -> float | None:
        return None if self.budget is None else parse_seconds(self.budget)

    @property
    def max_trials(self) -> float:
        """How many trials are trained, also if trials=None."""
        if self.trials is not None:
            return self.trials
        return TRIALS if self.budget is None else math.inf

    @property
    def limit_bytes(self) -> int | None:
        return None if self.ram_limit is None else parse_bytes(self.ram_limit)

    @property
    def directions(self) -> list[str]:
        return ["maximize" if column in MORE_IS_BETTER else "minimize" for column in self.objective]

    @property
    def settled_pruner(self) -> Pruner:
        """The pruner, also if pruner=None: gp and cmaes learn from whole trials only."""
        if self.pruner is not None:
            return self.pruner
        alone = len(self.objective) == 1 and self.seeds == 1 and self.objective[0] not in MEASURED
        return "median" if alone and self.sampler not in ("gp", "cmaes") else "none"

    def __post_init__(self):
        require_not_negative(self, "trials", "repeat_best", "seed")
        require_positive(self, "jobs", "threads", "seeds", "repeat_seeds", "trial_seconds", "trial_tokens")
        if self.budget is not None and not self.budget_seconds:
            raise ValueError(f"budget={self.budget} is no time: use e.g. 90s, 20m or 1.5h")
        if self.ram_limit is not None and not self.limit_bytes:
            raise ValueError(f"ram_limit={self.ram_limit} is no size: use e.g. 800MB or 2GB")
        require_folder_name("study", self.name)
        if self.trial_seconds and self.trial_tokens:
            raise ValueError("trial_seconds and trial_tokens both fix a trial's steps: give one")
        check_objectives(self)
        check_pruner(self)


def check_objectives(options: Options) -> None:
    """Raise ValueError if the objectives are unknown, or do not go with the sampler."""
    names = options.objective
    if unknown := [column for column in names if column not in (*COLUMNS, *MEASURED)]:
        raise ValueError(f"objective={unknown[0]} is not known: use one of {', '.join((*COLUMNS, *MEASURED))}")
    if len(set(names)) < len(names):
        raise ValueError(f"objective={' '.join(names)} names one twice: name each once")
    if len(names) > 1 and options.sampler == "cmaes":
        raise ValueError("sampler=cmaes has one objective: use tpe, gp or random for several")
    if options.repeat_best and len(names) > 1:
        raise ValueError(f"repeat_best={options.repeat_best} needs one objective, which says what is best")


def check_pruner(options: Options) -> None:
    """Raise ValueError if the pruner cannot follow the trials."""
    pruner, seeds = options.pruner, options.seeds
    if pruner in (None, "none"):
        return
    if len(options.objective) > 1 or options.objective[0] in MEASURED:
        raise ValueError(f"pruner={pruner} needs one objective, a column of the log: use pruner=none")
    if pruner == "wilcoxon" and seeds < 5:  # a difference of fewer pairs than four is never significant
        raise ValueError(f"pruner=wilcoxon can end a trial after four seeds, and seeds={seeds} leaves none to be "
                         "spared: use seeds=5 or more")
    if pruner != "wilcoxon" and seeds > 1:
        raise ValueError(f"pruner={pruner} follows one run: use pruner=wilcoxon, or seeds=1")
