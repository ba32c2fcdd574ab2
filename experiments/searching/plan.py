"""When a search ends: trials, time, and the repeats of the best."""

import math
import statistics
import time

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from config import Config
from experiments.searching import queue
from experiments.searching.options import Options
from experiments.searching.outcomes import outcome

COUNTED = ("done", "pruned", "out of memory", "crashed", "diverged")  # outcomes that --trials counts


class Plan:
    """What is still to be done for a study, by the options and the time that is left."""

    def __init__(self, options: Options, base: Config, study: Study, *, began: float):
        self.options, self.study, self._began = options, study, began
        self._first_further_seed = base.train.seed + options.seeds

    def is_over(self) -> bool:
        """Whether no more trials may begin; queues the repeats of the best when the other trials have ended."""
        return not self._may_draw() and not self._may_repeat()

    def is_to_go_on(self) -> bool:
        """Whether more trials may begin, now or if another process dies and loses its trial."""
        running = self._trials(TrialState.RUNNING)
        return not self.is_over() or bool(running) and (
            self.num_trials() - len(running) < self.options.max_trials
            and self.seconds_left() >= self.expected_seconds())

    def _may_draw(self) -> bool:
        """Whether a trial that is not a repeat may begin."""
        if self.num_trials() >= self.options.max_trials:
            return False
        if self.options.sampler == "grid" and not self._trials(TrialState.WAITING):
            return False
        return self.seconds_left() >= self.expected_seconds() + self._reserved_seconds()

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))

    def num_trials(self, before: float = math.inf) -> int:
        """How many trials with a number below `before` count: trained, or under way in any process."""
        return sum(outcome(trial) in (*COUNTED, "running") for trial in self.study.get_trials(deepcopy=False)
                   if "repeat_of" not in trial.user_attrs and trial.number < before)

    def is_one_too_many(self, trial: Trial) -> bool:
        """Whether other processes began the last trials, or took the last points of the grid, before this one."""
        if self.options.sampler == "grid" and "ticket" not in trial.user_attrs:
            return True  # no point of the grid was left, so it was drawn at random
        return "repeat_of" not in trial.user_attrs and self.num_trials(before=trial.number) >= self.options.max_trials

    def _may_repeat(self) -> bool:
        """Whether a repeat may begin: not while other trials run, for one of them may be the best."""
        if not self.options.repeat_best or self.seconds_left() < self.expected_seconds():
            return False
        if any("repeat_of" not in trial.user_attrs for trial in self._trials(TrialState.RUNNING)):
            return False
        first = self._first_further_seed
        queue.queue_repeats(self.study, self.best()[:self.options.repeat_best],
                            list(range(first, first + self.options.repeat_seeds)))
        return any("repeat_of" in trial.user_attrs for trial in self._trials(TrialState.WAITING))

    def best(self) -> list[FrozenTrial]:
        """The trials that are done, best first, without repeats."""
        done = [trial for trial in self._trials(TrialState.COMPLETE) if outcome(trial) == "done"]
        return sorted(done, key=lambda trial: trial.values[0], reverse=self.options.directions[0] == "maximize")

    def seconds_left(self) -> float:
        budget = self.options.budget_seconds
        return math.inf if budget is None else budget - (time.monotonic() - self._began)

    def expected_seconds(self) -> float:
        """The median of the trials that are done."""
        seen = [trial.user_attrs["seconds"] for trial in self._trials(TrialState.COMPLETE)
                if outcome(trial) in ("done", "repeat")]
        return statistics.median(seen) if seen else 1.5 * (self.options.trial_seconds or 0.0) * self.options.seeds

    def _reserved_seconds(self) -> float:
        """The part of the budget that is kept for the repeats at the end."""
        count = self.options.repeat_best * self.options.repeat_seeds
        return math.ceil(count / self.options.jobs) * self.expected_seconds()

    def is_out_of_time(self) -> bool:
        """Whether the budget has been over for a quarter of a trial's time, so that what is almost done may end."""
        return self.seconds_left() < -0.25 * self.expected_seconds()
