"""The search itself: draw a configuration, predict its memory, train it if it fits, record how it ended."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import optuna

from config import Config
from experiments.processes.worker import wait_for_answers
from experiments.searching import queue
from experiments.searching.jobs import Job
from experiments.searching.losses import require_one_text
from experiments.searching.options import Options
from experiments.searching.outcomes import outcome
from experiments.searching.predictor import POLL_SECONDS, Predictor
from experiments.searching.shared import SharedStudy
from experiments.searching.space_file import load_space
from experiments.searching.trainer import Trainer, follow


@dataclass(frozen=True)
class Snapshot:
    """The state of a search, for display."""

    study: optuna.Study | None  # None = the text is being read
    running: list[Job]
    counts: dict[str, int]  # trials of each outcome
    seconds: float


OnChange = Callable[[Snapshot], object]


def search(
    options: Options, base: Config | None = None, *, on_change: OnChange | None = None,
    trainer: str = "train:main", predictor: str = "memory:predict",
) -> optuna.Study:
    """Search as the options say, or go on with the study; return it.

    `base` replaces the configuration that the space names. `on_change` is called ten times a second, and whenever a
    trial begins or ends. `trainer` and `predictor` name the functions that do the work. Raises ValueError for the
    user's mistakes, and Stopped after SIGINT or SIGTERM.
    """
    return Search(options, base, on_change or (lambda _: None), trainer, predictor).run()


class Search:
    """Trials side by side, each in a process of its own, within the memory limit that they share."""

    def __init__(
        self, options: Options, base: Config | None, on_change: OnChange, trainer: str, predictor: str,
    ):
        self.options, self.on_change = options, on_change
        self.space = load_space(options.space).on(base)
        require_one_text(options.objective, self.space)
        logs = options.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(options, self.space.base, trainer, logs)
        self.predictor = Predictor(options, predictor, self.trainer.children, logs)
        self.signals, self.began, self.jobs = self.trainer.children.signals, time.monotonic(), []
        self.shared: SharedStudy | None = None

    def run(self) -> optuna.Study:
        with self.signals.listening():
            try:
                self.show()
                idle = self.predictor.idle_bytes(self.space.base)
                self.shared = SharedStudy(self.options, self.space, idle_bytes=idle, began=self.began)
                while self.jobs or self.shared.plan.is_to_go_on():
                    self.step()
            finally:
                self.abandon("the search was stopped")
                if self.shared:
                    self.shared.close()
        self.show()
        return self.shared.study

    def step(self) -> None:
        """Do what can be done now, then wait a moment for the processes."""
        self.signals.raise_if_any()
        self.drop_revoked()
        if self.shared.look_after_the_dead(self.jobs):
            self.predictor.restart_if_large(self.jobs)
        self.take_answers()
        for job in self.jobs:
            follow(job, self.options, self.space.base)
        self.trainer.start_waiting(self.jobs, self.shared.limit_bytes)
        if len(self.jobs) < self.options.jobs and not self.shared.plan.is_over() and (job := self.shared.draw()):
            self.jobs.append(job)
            self.predictor.ask(job, self.shared.limit_bytes)
        if self.shared.plan.is_out_of_time():
            self.abandon("the budget was over")
        self.show()
        wait_for_answers((self.trainer.children.server, self.predictor), POLL_SECONDS)

    def take_answers(self) -> None:
        """Record the trials that have ended since."""
        ended = self.trainer.children.ended()
        skipped = self.predictor.ended(ended, self.jobs, self.shared)
        for job, found in chain(skipped, self.trainer.ended(ended, self.jobs)):
            self.jobs.remove(job)
            if found:
                self.shared.tell(job, found)

    def drop_revoked(self) -> None:
        """Kill the trials that another process has failed, because this one was asleep and had no heartbeat."""
        for job in self.shared.revoked(self.jobs):
            self.jobs.remove(job)
            if job.child:
                job.child.send(signal.SIGKILL, "revoked")
            queue.queue_lost(self.shared.study)

    def abandon(self, reason: str) -> None:
        """Kill what runs; it is lost, and is trained when the search goes on."""
        self.trainer.children.close()
        self.predictor.close()
        while self.jobs:
            queue.tell_lost(self.shared.study, self.jobs.pop().trial, reason)
        if self.shared:
            queue.remove_lost(self.shared.study)

    def show(self) -> None:
        study = self.shared.study if self.shared else None
        trials = study.get_trials(deepcopy=False) if study else []
        counts = Counter(outcome(trial) for trial in trials if trial.state.is_finished())
        self.on_change(Snapshot(study, list(self.jobs), dict(counts), time.monotonic() - self.began))
