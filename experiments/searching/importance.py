"""Which parameters decide how good a trial is, and the trials that can tell."""

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from experiments.searching.outcomes import done_trials, signs

LEAST_TRIALS = 5  # done, for importances or a contour to mean anything


class NothingToDraw(Exception):
    """A picture that the trials do not give; the sentence says why."""


def done_or_nothing(results: optuna.Study) -> list[FrozenTrial]:
    """The trials that are done. Raises NothingToDraw where there is none."""
    if trials := done_trials(results):
        return trials
    raise NothingToDraw("no trial is done")


def varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """The parameters of which the trials have more than one value."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1]


def importances(results: optuna.Study, place: int = 0) -> dict[str, float]:
    """How much each varied parameter decides whether a trial is among the best, most first; they sum to 1.

    PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255. Raises NothingToDraw where too few are done.
    """
    trials, names = done_or_nothing(results), varied(done_trials(results))
    if len(trials) < LEAST_TRIALS:
        raise NothingToDraw(f"importances need {LEAST_TRIALS} trials that are done, and there are {len(trials)}")
    if not names:
        raise NothingToDraw("no parameter varies among the trials that are done")
    sign = signs(results)[place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a target is minimised, which its sign sees to
        return get_param_importances(results, evaluator=evaluator(len(trials)), params=names,
                                     target=lambda trial: sign * trial.values[place])


def evaluator(num_trials: int) -> PedAnovaImportanceEvaluator:
    """What finds the importances: it compares the best tenth with all, or five trials where that is more."""
    return PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, LEAST_TRIALS / num_trials)))


def by_importance(results: optuna.Study, place: int = 0) -> list[str]:
    """The parameters that vary among the trials that are done; the most important first, where that can be told."""
    trials = done_trials(results)
    return list(importances(results, place)) if len(trials) >= LEAST_TRIALS and varied(trials) else varied(trials)
