"""What is written into the study when a trial ends, and told to the sampler."""

import statistics

from optuna.study import Study
from optuna.trial import Trial, TrialState

from experiments.searching import queue
from experiments.searching.jobs import Ending, Job
from experiments.searching.options import Options
from experiments.searching.samplers import tell_infeasible
from experiments.searching.studies import unless_revoked

GIVE_UP_AFTER = 200  # infeasible configurations in a row


class Records:
    """The ends of this process's trials."""

    def __init__(self, options: Options, study: Study):
        self._options, self._study = options, study
        self._oversized_in_a_row = self._infeasible_in_a_row = 0

    @unless_revoked
    def tell(self, job: Job, found: Ending) -> None:
        """Record how a trial ended; a lost one waits to be trained again."""
        if found.outcome == "lost":
            queue.tell_lost(self._study, job.trial, found.reason)
            return queue.queue_lost(self._study)
        attributes = {"seconds": job.seconds, "peak_bytes": job.peak_bytes, "reason": found.reason,
                      "outcome": found.outcome}  # last: it says that the others are there
        for name, value in attributes.items():
            job.trial.set_user_attr(name, value)
        if found.outcome == "done":
            self._study.tell(job.trial, [statistics.fmean(values) for values in zip(*job.values, strict=True)])
        else:
            self._study.tell(job.trial, state=TrialState.PRUNED if found.outcome == "pruned" else TrialState.FAIL)

    def feasible(self) -> None:
        """Note that a configuration fits."""
        self._oversized_in_a_row = self._infeasible_in_a_row = 0

    def skip(self, trial: Trial, outcome: str, reason: str, excess: float) -> None:
        """Record a configuration that is not trained. Raises ValueError after GIVE_UP_AFTER in a row."""
        self._infeasible_in_a_row += 1
        self._oversized_in_a_row += outcome == "oversized"
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        tell_infeasible(self._study, trial, self._options.sampler, excess,
                        self._oversized_in_a_row if outcome == "oversized" else 0)
        if self._infeasible_in_a_row >= GIVE_UP_AFTER:
            raise ValueError(f"{GIVE_UP_AFTER} configurations in a row were not to be trained, the last because "
                             f"{reason}: allow more with --ram-limit, shrink them with --on-exceed shrink, or narrow "
                             "the space")
