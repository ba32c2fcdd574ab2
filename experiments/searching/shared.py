"""The study as this process shares it with others: what it takes from it, and what it leaves."""

import math
import time
from collections.abc import Sequence

from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from configuration.command_line import spell_bytes
from experiments.searching import queue
from experiments.searching.claims import claims_on
from experiments.searching.jobs import Job, make_job
from experiments.searching.options import Options
from experiments.searching.plan import Plan
from experiments.searching.records import Records
from experiments.searching.samplers import make_pruner
from experiments.searching.space import Space
from experiments.searching.studies import HEARTBEAT_SECONDS, open_study
from memory_prediction.free_memory import free_bytes


class SharedStudy:
    """Begins a study or goes on with it; the trials of dead processes wait to be trained again.

    Raises ValueError if the study was begun with another question, or if an idle process exceeds the memory limit.
    """

    def __init__(
        self, options: Options, space: Space, sampler: BaseSampler, *, idle_bytes: int | None, began: float,
    ):
        self.study = open_study(options, space, limit_with_room(options, idle_bytes), idle_bytes)
        self.study.sampler, self.study.pruner = sampler, make_pruner(options)
        self.limit_bytes = self.study.user_attrs["limit_bytes"]
        self.plan = Plan(options, space.base, self.study, began=began)
        self.records = Records(options, self.study)
        self._options, self._space, self._claims = options, space, claims_on(self.study, options)
        self._beat = -math.inf
        self.look_after_the_dead([])
        (queue.queue_grid if options.sampler == "grid" else queue.queue_base)(self.study, space)

    def draw(self) -> Job | None:
        """Take the next trial and draw its configuration; None = it is not to be trained, and that is recorded."""
        trial = self._claims.ask()
        if queue.is_second(self.study, trial) or self.plan.is_one_too_many(trial):
            trial.set_user_attr("twice", True)
            return queue.tell_lost(self.study, trial, "another process has begun it, or the last one")
        try:
            return make_job(trial, self._options, self._space)
        except ValueError as error:
            refused = str(error)
        return self.records.skip(trial, "invalid", refused, 1.0)

    def look_after_the_dead(self, jobs: Sequence[Job]) -> bool:
        """Every HEARTBEAT_SECONDS, show that the jobs are alive and queue the trials of dead processes."""
        if time.monotonic() - self._beat < HEARTBEAT_SECONDS:
            return False
        self._beat = time.monotonic()
        self._claims.beat(job.trial for job in jobs)
        self._claims.fail_the_dead()
        queue.queue_lost(self.study)
        return True

    def revoked(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs whose trials another process has failed."""
        running = {trial.number for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
        return [job for job in jobs if job.number not in running]

    def close(self) -> None:
        self._claims.close()


def limit_with_room(options: Options, idle_bytes: int | None) -> int:
    """The memory limit. Raises ValueError if an idle process exceeds it."""
    limit = options.limit_bytes or int(0.9 * (free_bytes() or math.inf))
    if limit <= (idle_bytes or 0):
        raise ValueError(f"ram_limit={options.ram_limit} has no room for any trial: a process holds "
                         f"{spell_bytes(idle_bytes)} before it trains")
    return limit
