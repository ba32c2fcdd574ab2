"""When a search ends: trials, time, and the repeats of the best."""

import math
import statistics
import time

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from config import Config
from experiments.searching import tickets
from experiments.searching.options import Options

COUNTED = ("done", "pruned", "out of memory", "crashed", "diverged")  # outcomes that --trials counts


class Plan:
    """What is still to be done of a study, by the options and the time that is left."""

    def __init__(self, options: Options, base: Config, study: Study, *, began: float):
        self.options, self.study, self._began = options, study, began
        self._first_further_seed = base.train.seed + options.seeds

    def is_over(self) -> bool:
        """Whether no more trials are to begin; has the best ones repeated when the others are done."""
        return not self._may_draw() and not self._may_repeat()

    def _may_draw(self) -> bool:
        """Whether a trial that is no repeat may begin."""
        if self.num_trials() >= self.options.max_trials:
            return False
        if self.options.sampler == "grid" and not self._waiting():
            return False
        return self.seconds_left() >= self.expected_seconds() + self._reserved_seconds()

    def _waiting(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def num_trials(self, before: float = math.inf) -> int:
        """Trials that count, of those with a number below `before`: trained, or under way here or elsewhere."""
        return sum(trial.state == TrialState.RUNNING or trial.user_attrs.get("outcome") in COUNTED
                   for trial in self.study.get_trials(deepcopy=False)
                   if "repeat_of" not in trial.user_attrs and trial.number < before)

    def is_one_too_many(self, trial: Trial) -> bool:
        """Whether others began the last trials while this one was drawn."""
        return "repeat_of" not in trial.user_attrs and self.num_trials(before=trial.number) >= self.options.max_trials

    def _may_repeat(self) -> bool:
        """Whether a repeat may begin. None may while other trials run, for one of them may be the best."""
        if not self.options.repeat_best or self.seconds_left() < self.expected_seconds():
            return False
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if any("repeat_of" not in trial.user_attrs for trial in running):
            return False
        first = self._first_further_seed
        tickets.queue_repeats(self.study, self.best()[:self.options.repeat_best],
                              list(range(first, first + self.options.repeat_seeds)))
        return any("repeat_of" in trial.user_attrs for trial in self._waiting())

    def best(self) -> list[FrozenTrial]:
        """The trials that are done, best first; without the repeats."""
        done = [trial for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                if trial.user_attrs.get("outcome") == "done" and "repeat_of" not in trial.user_attrs]
        return sorted(done, key=lambda trial: trial.values[0], reverse=self.options.directions[0] == "maximize")

    def seconds_left(self) -> float:
        budget = self.options.budget_seconds
        return math.inf if budget is None else budget - (time.monotonic() - self._began)

    def expected_seconds(self) -> float:
        """Of a trial, by those that are done."""
        seen = [trial.user_attrs["seconds"] for trial in self.study.get_trials(deepcopy=False)
                if trial.user_attrs.get("outcome") == "done"]  # of which another process may be about to tell
        return statistics.median(seen) if seen else 1.5 * (self.options.trial_seconds or 0.0) * self.options.seeds

    def _reserved_seconds(self) -> float:
        """Of the budget, for the repeats at the end."""
        count = self.options.repeat_best * self.options.repeat_seeds
        return math.ceil(count / self.options.jobs) * self.expected_seconds()

    def is_out_of_time(self) -> bool:
        """Whether the budget is over, and a quarter of a trial's time besides, for those that are almost there."""
        return self.seconds_left() < -0.25 * self.expected_seconds()
