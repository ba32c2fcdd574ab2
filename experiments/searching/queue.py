"""What waits in the study to be trained: lost trials, the base, the points of a grid, repeats of the best.

What waits has a ticket, and a retried trial the numbers of the trials that it retries. Of two trials with the same
ticket and history the younger is dropped, so processes may queue the same at once.
"""

import copy
from contextlib import suppress
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

import runs
from experiments.searching.outcomes import outcome
from experiments.searching.space import Space
from experiments.searching.studies import RETRY
from run_store.listing import is_run
from run_store.pruning import Removal


def tell_lost(study: Study, trial: FrozenTrial | Trial, reason: str) -> None:
    """Fail a trial that ended through no fault of its own; do nothing if it has ended."""
    storage = study._storage
    with suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "outcome", "lost")
        storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def remove_lost(study: Study) -> None:
    """Remove the saved runs that lost trials began: what trains them again begins anew, under another name."""
    for trial in study.get_trials(deepcopy=False):
        name = run_name(study, trial)
        began = outcome(trial) == "lost" and trial.user_attrs.get("run") == name
        for path in filter(is_run, [runs.MODELS / name, *runs.MODELS.glob(f"{name}-seed-*")] if began else ()):
            with suppress(ValueError):  # it is being trained: by a process that will see that it has lost the trial
                Removal(path, "its trial was lost", run=path).delete()


def run_name(study: Study, trial: FrozenTrial | Trial) -> str:
    """The saved run of a trial's first seed."""
    return f"{study.study_name}-{trial.number:04d}"


def queue_lost(study: Study) -> None:
    """Queue every lost trial again, unless it was lost too often; remove what it has left."""
    remove_lost(study)
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in history(trial)}
    for trial in trials:
        if outcome(trial) == "lost" and trial.number not in retried:
            RETRY(study, copy.deepcopy(trial))  # it changes what it is given


def history(trial: FrozenTrial) -> tuple[int, ...]:
    """The numbers of the trials that this one retries, oldest first."""
    return tuple(trial.system_attrs.get("retry_history", ()))


def queue(study: Study, points: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Queue points, each once: ticket -> (parameters, attributes)."""
    known = {trial.user_attrs.get("ticket") for trial in study.get_trials(deepcopy=False)}
    for ticket, (parameters, attributes) in points.items():
        if ticket not in known:
            study.enqueue_trial(parameters, user_attrs={"ticket": ticket} | attributes)


def queue_grid(study: Study, space: Space) -> None:
    """Queue every point of the grid."""
    queue(study, {f"grid {number}": (point, {}) for number, point in enumerate(space.grid())})


def queue_base(study: Study, space: Space) -> None:
    """Queue the base itself if it is a point of the space: the search has to beat it."""
    if point := space.base_point():
        queue(study, {"base": (point, {"is_base": True})})


def queue_repeats(study: Study, best: list[FrozenTrial], seeds: list[int]) -> None:
    """Queue trials again with each of the seeds."""
    queue(study, {f"repeat {trial.number} {seed}": (trial.params, {"repeat_of": trial.number, "seed": seed})
                  for trial in best for seed in seeds})


def is_second(study: Study, trial: Trial) -> bool:
    """Whether an older trial has the same ticket and history."""
    trials = study.get_trials(deepcopy=False)
    keys = [(other.user_attrs.get("ticket"), history(other)) for other in trials[:trial.number + 1]]
    return keys[-1] != (None, ()) and keys[-1] in keys[:-1]
