"""Samplers, pruners, and what a sampler is told of configurations that do not fit.

A configuration that does not fit never trains, yet a sampler learns from what it is told of it (optuna issue 2969:
pruned trials drive TPE to shallow networks). Optuna 5's samplers read different states, so each is told what suits it:

    tpe              FAIL, which it does not see, and each fourth in a row PRUNED with a broken constraint. Only FAIL,
                     and it goes on to draw what never fits; only PRUNED, and it keeps away from the limit, where
                     good models are. On experiments/spaces/small.yaml with a loss and a size by formula, a limit that
                     a fifth fits, 40 trials, 24 seeds: median of the best 1.076 with FAIL (68 asked in vain), 1.071
                     so (60), 1.105 with PRUNED (27); random 1.114 (136).
    gp               COMPLETE with the median of the values so far and a broken constraint: it sees nothing but
                     COMPLETE, and draws the same point again if it is not told. Every trial has the constraint,
                     as it must.
    cmaes            FAIL: the point is drawn again, as its generation waits for whole trials.
    random grid qmc  FAIL: they learn nothing.
"""

import statistics
from collections.abc import Callable
from typing import Any

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.searching.options import EVALUATIONS, Options
from experiments.searching.space import Space

CONSTRAINT = "fits"  # predicted / limit - 1; 1 if the flags contradict each other; above 0 = infeasible
PRUNED_EVERY = 4  # tpe: so many infeasible points in a row


class SeededByTrial:
    """A sampler whose random numbers follow, for each trial, from the seed and the trial's number.

    So a study that goes on does not draw its first points again, and two processes do not draw the same points.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self._make, self._seed, self._sampler = make, seed, make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._make((1_000_003 * self._seed + trial.number) % 2**32)
        self._sampler.before_trial(study, trial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def make_sampler(options: Options, space: Space) -> SeededByTrial:
    """The sampler of options.sampler. Raises ValueError if a package is missing."""
    conditional, alone = bool(space.when), len(options.objective) == 1
    makers = {
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=alone, group=alone and conditional,
                                       constant_liar=True),
        "gp": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "random": RandomSampler,
        "grid": RandomSampler,  # its points wait in the study: see queue.py
        "qmc": lambda seed: QMCSampler(seed=options.seed, scramble=True, warn_independent_sampling=False,
                                       independent_sampler=RandomSampler(seed=seed)),  # one sequence for all trials
    }
    if options.sampler == "cmaes":
        _require_cmaes()
    return SeededByTrial(makers[options.sampler], options.seed)


def make_pruner(options: Options) -> BasePruner:
    """The pruner of options.pruner: its steps are the evaluations of a trial, or its seeds."""
    return {"median": MedianPruner(n_startup_trials=5, n_warmup_steps=EVALUATIONS // 5, n_min_trials=3),
            "hyperband": HyperbandPruner(min_resource=1, max_resource=EVALUATIONS, reduction_factor=3),
            "wilcoxon": WilcoxonPruner(p_threshold=0.1, n_startup_steps=2),
            "none": NopPruner()}[options.settled_pruner]


def _require_cmaes() -> None:
    """Optuna itself would miss it in the middle of a search only."""
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise ValueError("sampler=cmaes needs the package cmaes: pip install cmaes") from None


def tell_infeasible(study: Study, trial: Trial, sampler: str, excess: float, in_a_row: int) -> None:
    """Tell the sampler of a point that is not trained.

    `in_a_row` counts the points in a row that did not fit, with this one; 0 = another reason.
    """
    set_constraint(trial, sampler, excess)
    if sampler == "gp" and (values := medians(study)):
        study.tell(trial, values)
    elif sampler == "tpe" and in_a_row and in_a_row % PRUNED_EVERY == 0:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, state=TrialState.FAIL)


def set_constraint(trial: Trial, sampler: str, excess: float) -> None:
    """Tell the sampler how far a trial exceeds the limit, as a share of it; below 0 = it fits. Some do not ask."""
    if sampler in ("tpe", "gp"):
        trial.set_constraint(CONSTRAINT, excess)


def medians(study: Study) -> list[float]:
    """The median of each objective over the trials that are done; [] = there are none."""
    done = [trial.values for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.user_attrs.get("outcome") == "done"]
    return [statistics.median(values) for values in zip(*done, strict=True)]
