"""The study as this process shares it with others: what it takes from it, and what it leaves."""

import math
import statistics
import time
from collections.abc import Sequence

import torch
from optuna.trial import Trial, TrialState

from configuration.command_line import spell_bytes
from experiments.processes.gpus import memory_bytes
from experiments.searching import queue
from experiments.searching.claims import claims_on
from experiments.searching.jobs import Ending, Job, make_job
from experiments.searching.options import Options
from experiments.searching.plan import Plan
from experiments.searching.samplers import make_pruner, make_sampler, tell_infeasible
from experiments.searching.space import Space
from experiments.searching.studies import HEARTBEAT_SECONDS, note, open_study, unless_revoked
from memory_prediction.free_memory import free_bytes
from tools import pick_device

CPU = torch.device("cpu")
UNKNOWN_LIMIT = 2**62  # bytes, where the system does not tell what is free
GIVE_UP_AFTER = 200  # infeasible configurations in a row


class SharedStudy:
    """Begins a study or goes on with it; the trials of dead processes wait to be trained again.

    Raises ValueError if the study was begun with another question, or if an idle process exceeds the memory limit.
    """

    def __init__(self, options: Options, space: Space, *, idle_bytes: int | None, began: float):
        limit_bytes = limit_with_room(options, idle_bytes, pick_device(space.base.train.device))
        self.study = open_study(options, space, limit_bytes, idle_bytes)
        self.study.sampler, self.study.pruner = make_sampler(options, space), make_pruner(options)
        self.limit_bytes = self.study.user_attrs["limit_bytes"]
        self.plan = Plan(options, space.base, self.study, began=began)
        self._options, self._space, self._claims = options, space, claims_on(self.study, options)
        self.skipped_in_a_row: list[str] = []  # outcomes since a configuration was accepted
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
        return self.skip(trial, "invalid", refused)

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

    @unless_revoked()
    def tell(self, job: Job, found: Ending) -> None:
        """Record how a trial ended; a lost one waits to be trained again."""
        if found.outcome == "lost":
            queue.tell_lost(self.study, job.trial, found.reason)
            return queue.queue_lost(self.study)
        note(job.trial, seconds=job.seconds, peak_bytes=job.peak_bytes, reason=found.reason,
             outcome=found.outcome)  # last: it says that the others are there
        if found.outcome == "done":
            self.study.tell(job.trial, [statistics.fmean(values) for values in zip(*job.values, strict=True)])
        else:
            self.study.tell(job.trial, state=TrialState.PRUNED if found.outcome == "pruned" else TrialState.FAIL)

    def skip(self, trial: Trial, outcome: str, reason: str, excess: float = 1.0) -> None:
        """Record a configuration that is not trained. Raises ValueError after GIVE_UP_AFTER in a row."""
        self.skipped_in_a_row.append(outcome)
        note(trial, outcome=outcome, reason=reason)
        in_a_row = self.skipped_in_a_row.count("oversized") if outcome == "oversized" else 0
        tell_infeasible(self.study, trial, self._options.sampler, excess, in_a_row)
        if len(self.skipped_in_a_row) >= GIVE_UP_AFTER:
            raise ValueError(f"{GIVE_UP_AFTER} configurations in a row were not to be trained, the last because "
                             f"{reason}: allow more with --ram-limit, shrink them with --on-exceed shrink, or narrow "
                             "the space")

    def close(self) -> None:
        self._claims.close()


def limit_with_room(options: Options, idle_bytes: int | None, device: torch.device = CPU) -> int:
    """The memory limit, of each GPU if trials run there. Raises ValueError if an idle process exceeds it."""
    free = memory_bytes(device) if device.type == "cuda" else free_bytes()
    limit = options.limit_bytes or (UNKNOWN_LIMIT if free is None else int(0.9 * free))
    if limit <= (idle_bytes or 0):
        raise ValueError(f"ram_limit={options.ram_limit} has no room for any trial: a process holds "
                         f"{spell_bytes(idle_bytes)} before it trains")
    return limit
