"""The outcomes of a study's trials, read from the attributes that the search sets.

A trial's state alone does not tell its outcome: the state of a configuration that was skipped for memory depends on the
sampler. The attribute `outcome` tells it: done, pruned, oversized, invalid, or a way to fail. A trial that repeats
another one with a further seed does not count as a configuration of its own.
"""

import json
import math
from collections import defaultdict
from statistics import fmean
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

FAILED = ("out of memory", "crashed", "diverged", "lost")
OUTCOMES = ("done", "repeat", "pruned", "oversized", "invalid", *FAILED, "queued twice", "running", "waiting")
UNTOLD = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "lost"}


def outcome(trial: FrozenTrial) -> str:
    """One of OUTCOMES."""
    if not trial.state.is_finished():
        return trial.state.name.lower()
    if "twice" in trial.user_attrs:
        return "queued twice"
    found = trial.user_attrs.get("outcome", UNTOLD[trial.state])
    if found == "done" and trial.state == TrialState.FAIL:
        return "lost"  # its process died before it could tell the values
    return "repeat" if found == "done" and "repeat_of" in trial.user_attrs else found


def columns(study: optuna.Study) -> list[str]:
    """The names of the objectives."""
    return [objective["column"] for objective in study.user_attrs["objectives"]]


def signs(study: optuna.Study) -> list[int]:
    """For each objective 1 if less is better, -1 if more is better."""
    return [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in study.directions]


def flags(trial: FrozenTrial) -> dict[str, Any]:
    """The flags that the trial changed, with those that were shrunk to make it fit."""
    return trial.user_attrs.get("flags", trial.params) | trial.user_attrs.get("shrunk", {})


def varying(trials: list[FrozenTrial]) -> list[str]:
    """The flags that differ between trials."""
    seen = [{name: json.dumps(value) for name, value in flags(trial).items()} for trial in trials]
    names = dict.fromkeys(name for one in seen for name in one)
    return [name for name in names if len({one.get(name) for one in seen}) > 1]


def measured(study: optuna.Study) -> optuna.Study:
    """A copy in memory with the same numbers and attributes, in which only trials that are done are complete.

    Values that a sampler was given for configurations that never ran are left out. The attribute `by_seed` has the
    first objective for each seed of a trial, and the trial's value is their mean.
    """
    trials = study.get_trials(deepcopy=False)
    copy = optuna.create_study(study_name=study.study_name, directions=study.directions)
    for name, value in study.user_attrs.items():
        copy.set_user_attr(name, value)
    repeats: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        if outcome(trial) == "repeat":
            repeats[trial.user_attrs["repeat_of"]].append(trial.values[0])
    copy.add_trials(_as_it_ended(trial, repeats[trial.number]) for trial in trials)
    return copy


def _as_it_ended(trial: FrozenTrial, repeats: list[float]) -> FrozenTrial:
    found, values = outcome(trial), None
    attrs = trial.user_attrs | {"outcome": found}
    attrs["by_seed"] = [trial.values[0], *repeats] if found in ("done", "repeat") else []
    if found == "done":
        values = [fmean(attrs["by_seed"]), *trial.values[1:]]
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    return optuna.trial.create_trial(
        state=states.get(found, TrialState.FAIL), values=values, params=trial.params,
        distributions=trial.distributions, user_attrs=attrs,
        intermediate_values=trial.intermediate_values if found in states else None)


def done_trials(results: optuna.Study) -> list[FrozenTrial]:
    """The trials of a `measured` study that are done with finite values, in order of time."""
    return [trial for trial in results.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if all(map(math.isfinite, trial.values))]


def ended(results: optuna.Study, *outcomes: str) -> list[FrozenTrial]:
    """The trials of a `measured` study with one of these outcomes."""
    return [trial for trial in results.get_trials(deepcopy=False) if trial.user_attrs["outcome"] in outcomes]


def best_trials(results: optuna.Study) -> list[FrozenTrial]:
    """The trials of a `measured` study that are done, best first.

    Trials repeated over further seeds stand before the others: one value alone may be luck. With several objectives
    only the Pareto front, sorted by the first.
    """
    (sign, *more) = signs(results)
    if more:
        return sorted(results.best_trials, key=lambda trial: sign * trial.values[0])
    return sorted(done_trials(results), key=lambda trial: (len(trial.user_attrs["by_seed"]) == 1, sign * trial.value))
