"""Who works on which trial, and what must still be trained: lost trials, the base, the points of a grid, repeats.

What must be trained waits in the study with a ticket. Whoever takes a ticket that an older trial has drops it, so
processes may queue the same at once.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.searching.space import Space

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 120.0  # without a heartbeat, from another host
LIVES = 3  # of a configuration: it is given up when so many who tried it have died


def this_worker() -> dict[str, Any]:
    """This process, so that another can tell whether it lives."""
    return {"host": _host(), "pid": os.getpid(), "start_time": _start_time(os.getpid())}


def _host() -> str:
    """This machine since it started, and this container: process numbers mean the same there."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8], os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is none, or only Linux could tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def is_alive(trial: FrozenTrial) -> bool:
    """Whether the process that works on a running trial can still tell of it."""
    worker = trial.user_attrs.get("worker")
    if worker is None:  # taken this moment, or its taker died before it could sign
        return time.time() - trial.datetime_start.timestamp() < STALE_SECONDS
    if worker["host"] == _host() and worker["start_time"] is not None:
        return _start_time(worker["pid"]) == worker["start_time"]
    return time.time() - trial.user_attrs.get("heartbeat", 0.0) < STALE_SECONDS


def fail_the_dead(study: Study) -> None:
    """Tell of the running trials whose process is dead that they are lost."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_alive(trial):
            tell_lost(study, trial, "the process that searched was killed")


def tell_lost(study: Study, trial: FrozenTrial | Trial, reason: str) -> None:
    """Tell that a trial ended through no fault of its own; nothing happens where it was told of already."""
    storage = study._storage
    with suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "outcome", "lost")
        storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def queue(study: Study, points: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Have points trained, each once: ticket -> (parameters, attributes)."""
    known = {trial.user_attrs.get("ticket") for trial in study.get_trials(deepcopy=False)}
    for ticket, (parameters, attributes) in points.items():
        if ticket not in known:
            study.enqueue_trial(parameters, user_attrs={"ticket": ticket} | attributes)


def queue_lost(study: Study) -> None:
    """Have every lost trial trained again, unless it was lost too often."""
    points = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        attributes, lives = trial.user_attrs, trial.user_attrs.get("life", 1)
        if attributes.get("outcome") == "lost" and "twice" not in attributes and lives < LIVES:
            kept = {key: attributes[key] for key in ("repeat_of", "seed", "is_base") if key in attributes}
            parameters = trial.system_attrs.get("fixed_params", {}) | trial.params
            if parameters:
                points[f"again {trial.number}"] = (parameters, kept | {"life": lives + 1})
    queue(study, points)


def queue_grid(study: Study, space: Space) -> None:
    """Have every point of the grid trained."""
    queue(study, {f"grid {number}": (point, {}) for number, point in enumerate(space.grid())})


def queue_base(study: Study, space: Space) -> None:
    """Have the base itself trained, where it is a point of the space: what is found is to be better than that."""
    if point := space.base_point():
        queue(study, {"base": (point, {"is_base": True})})


def queue_repeats(study: Study, best: list[FrozenTrial], seeds: list[int]) -> None:
    """Have trials trained again with each of the seeds."""
    queue(study, {f"repeat {trial.number} {seed}": (trial.params, {"repeat_of": trial.number, "seed": seed})
                  for trial in best for seed in seeds})


def is_second(study: Study, trial: Trial) -> bool:
    """Whether an older trial has the same ticket."""
    ticket = trial.user_attrs.get("ticket")
    return ticket is not None and any(other.user_attrs.get("ticket") == ticket and other.number < trial.number
                                      for other in study.get_trials(deepcopy=False))
