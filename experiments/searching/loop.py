"""The search itself: ask for a configuration, predict what it needs, train what fits, tell what came of it."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from config import Config, override, save_config, to_dict
from configuration.command_line import spell_bytes
from experiments.searching import tickets
from experiments.searching.book import Book
from experiments.searching.jobs import Ending, Job, LogReader, ending
from experiments.searching.lengths import follow, is_worse_over_seeds, length
from experiments.searching.options import Options
from experiments.searching.plan import Plan
from experiments.searching.samplers import make_pruner, make_sampler, set_constraint
from experiments.searching.service import Service, wait_for_answers
from experiments.searching.signals import Signals
from experiments.searching.space import Space
from experiments.searching.studies import ask, open_study, plain
from memory_prediction.process import free_bytes

POLL_SECONDS = 0.1
MOST_PREDICTOR_BYTES = 1 << 30  # some predictions take real steps; what stays of them goes with the process


@dataclass(frozen=True)
class Snapshot:
    """The search at a moment, for who watches it."""

    study: optuna.Study | None  # None = the text is being read
    running: list[Job]
    counts: dict[str, int]  # trials of each outcome
    seconds: float


def search(
    options: Options, base: Config | None = None, *, on_change: Callable[[Snapshot], object] | None = None,
    trainer: str = "train:main", predictor: str = "memory:predict",
) -> optuna.Study:
    """Search as the options say, or go on with the study; return it.

    `base` stands for the configuration that the space names. `on_change` is called ten times a second, and whenever
    a trial has come or gone. `trainer` and `predictor` name the functions that do the work. Raises ValueError for what
    the user can mend, and Stopped after SIGINT or SIGTERM.
    """
    return Search(options, base, on_change or (lambda _: None), trainer, predictor).run()


class Search:
    """Trials side by side, each in a process of its own, within the limit that they share."""

    def __init__(
        self, options: Options, base: Config | None, on_change: Callable[[Snapshot], object], trainer: str,
        predictor: str,
    ):
        self.options, self.on_change, self.trainer = options, on_change, trainer
        self.space = Space.load(options.space).on(base)
        self.base, self.sampler, self.logs = self.space.base, make_sampler(options, self.space), options.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        # torch._dynamo: optimizers import it late
        modules = [trainer.partition(":")[0], "experiments.searching.timing", "torch._dynamo"]
        self.starter = Service("experiments.searching.starter", *modules, threads=options.threads,
                               log=self.logs / "starter.txt")
        self.predictor = Service("experiments.searching.predicting", predictor, threads=options.threads,
                                 log=self.logs / "predictor.txt")
        self.jobs: list[Job] = []
        self.signals, self.study, self.began, self.beat = Signals(), None, time.monotonic(), -math.inf

    # ---- the order of things ----

    def run(self) -> optuna.Study:
        with self.signals.listening():
            try:
                self.open()
                while self.jobs or not self.plan.is_over():
                    self.look_around()
                    self.take_answers()
                    for job in self.jobs:
                        follow(job, self.options, self.base)
                    self.start_waiting()
                    if len(self.jobs) < self.options.jobs and not self.plan.is_over():
                        self.ask()
                    if self.plan.is_out_of_time():
                        self.abandon("the budget was over")
                    self.on_change(self.snapshot())
                    wait_for_answers((self.starter, self.predictor), POLL_SECONDS)
            finally:
                self.abandon("the search was stopped")
                self.starter.close()
                self.predictor.close()
        self.on_change(self.snapshot())
        return self.study

    def open(self) -> None:
        """Begin the study, or go on: what dead processes left is to be trained again."""
        self.on_change(self.snapshot())
        self.predictor.ask({"id": -1, "config": to_dict(self.base)})
        self.starter.start()
        while not (answers := self.predictor.answers()):
            wait_for_answers([self.predictor], POLL_SECONDS)
            self.signals.raise_if_any()
        if "died" in answers[0]:
            raise ValueError(f"the process that predicts has ended; {self.logs / 'predictor.txt'} says why")
        if "invalid" in answers[0]:
            raise ValueError(f"the base cannot be trained: {answers[0]['invalid']}")
        limit, idle = self.options.limit_bytes or int(0.9 * (free_bytes() or math.inf)), answers[0]["baseline_bytes"]
        if limit <= (idle or 0):
            raise ValueError(f"ram_limit={self.options.ram_limit} has no room for any trial: a process holds "
                             f"{spell_bytes(idle)} before it trains")
        self.study = open_study(self.options, self.space, limit, idle)
        self.study.sampler, self.study.pruner = self.sampler, make_pruner(self.options)
        self.limit_bytes = self.study.user_attrs["limit_bytes"]
        self.book = Book(self.options, self.study)
        self.plan = Plan(self.options, self.base, self.study, began=self.began)
        tickets.fail_the_dead(self.study)
        tickets.queue_lost(self.study)
        if self.options.sampler == "grid":
            tickets.queue_grid(self.study, self.space)
        else:
            tickets.queue_base(self.study, self.space)

    def ask(self) -> None:
        """Draw a configuration, and have its memory predicted."""
        trial = ask(self.study, self.options.storage)
        trial.set_user_attr("worker", tickets.this_worker())
        trial.set_user_attr("heartbeat", time.time())
        if tickets.is_second(self.study, trial) or self.plan.is_one_too_many(trial):
            trial.set_user_attr("twice", True)
            return tickets.tell_lost(self.study, trial, "another process has begun it, or the last one")
        flags = self.space.suggest(trial)
        seed = trial.user_attrs.get("seed", self.base.train.seed)
        trial.set_user_attr("seed", seed)
        trial.set_user_attr("flags", plain(flags))
        if problem := self.space.problem(flags):
            return self.book.skip(trial, "invalid", problem, 1.0)
        try:
            cfg = override(self.base, flags | {"train.seed": seed})
        except ValueError as error:
            return self.book.skip(trial, "invalid", str(error), 1.0)
        count = 1 if "repeat_of" in trial.user_attrs else self.options.seeds
        self.jobs.append(Job(trial, flags, cfg, list(range(seed, seed + count))))
        self.predictor.ask({"id": trial.number, "config": to_dict(cfg), "limit_bytes": self.limit_bytes,
                            "shrink": self.options.on_exceed == "shrink"})

    def predicted(self, job: Job, answer: dict[str, Any]) -> None:
        """Train what fits, as soon as there is room; skip the rest."""
        job.trial.set_user_attr("predict_seconds", answer["seconds"])
        if "invalid" in answer:
            self.jobs.remove(job)
            return self.book.skip(job.trial, "invalid", answer["invalid"], 1.0)
        low, high = answer["low_bytes"], answer["high_bytes"]
        for name, value in {"predicted_low_bytes": low, "predicted_high_bytes": high, "shrunk": answer["shrunk"],
                            "allocator": answer["allocator"], "parameters": answer["parameters"]}.items():
            job.trial.set_user_attr(name, value)
        if answer["allocator"] is None:
            self.jobs.remove(job)
            reason = f"{spell_bytes(low)} predicted, over the {spell_bytes(self.limit_bytes)} allowed"
            return self.book.skip(job.trial, "oversized", reason, low / self.limit_bytes - 1)
        set_constraint(job.trial, self.options.sampler, low / self.limit_bytes - 1)
        self.book.trains()
        job.prediction, job.phase = answer, "waiting"
        job.granted_bytes = self.limit_bytes if self.options.jobs == 1 else min(self.limit_bytes, job.needed_bytes)

    def start_waiting(self) -> None:
        """Start the trials for which there is room, oldest first."""
        for job in self.jobs:
            if job.phase == "waiting":
                taken = sum(other.granted_bytes for other in self.jobs if other.phase in ("timing", "training"))
                if taken + job.granted_bytes > self.limit_bytes:
                    return
                self.begin(job)

    def begin(self, job: Job) -> None:
        """Start the next process of a trial: first, where time is to be equal, one that measures its speed."""
        job.cfg = override(job.cfg, job.prediction["shrunk"] | {"train.seed": job.seeds[len(job.values)]})
        if self.options.trial_seconds and job.step_seconds is None:
            job.phase = "timing"
            words = [str(self.write_config(job)), job.prediction["allocator"], str(self.file(job, "timing.json"))]
            return self.fork(job, "experiments.searching.timing:main", words)
        name, flags = job.run_name(self.study.study_name), length(self.options, self.base, job.cfg, job.step_seconds)
        job.phase, job.reader = "training", LogReader(name)
        limit = f"{job.granted_bytes // 10**6}MB"
        job.cfg = override(job.cfg, flags | {"train.name": name, "train.memory_limit": limit})
        if not job.values:
            steps = {"train.steps": flags["train.steps"]} if flags["train.steps"] != self.base.train.steps else {}
            job.trial.set_user_attr("flags", plain(job.flags | steps))
            job.trial.set_user_attr("run", name)
        self.fork(job, self.trainer, ["--config", str(self.write_config(job))])

    def fork(self, job: Job, call: str, words: list[str]) -> None:
        job.ended_by, job.reported, job.child_began = None, -1, time.monotonic()
        self.starter.ask({"id": job.number, "call": call, "argv": words, "log": str(self.file(job, "txt"))})

    def take_answers(self) -> None:
        """What the predictor and the processes of the trials have told since."""
        by_number = {job.number: job for job in self.jobs}
        for answer in self.predictor.answers():
            if "died" in answer:
                for job in [job for job in self.jobs if job.phase == "predicting"]:
                    self.tell(job, Ending("crashed", f"the predictor ended with status {answer['died']}"))
            elif job := by_number.get(answer["id"]):
                self.predicted(job, answer)
        for answer in self.starter.answers():
            if "died" in answer:
                for job in [job for job in self.jobs if job.phase in ("timing", "training")]:
                    job.ended(0)
                    self.tell(job, Ending("lost", "the process that starts trials was ended"))
            elif (job := by_number.get(answer["id"])) and "pid" in answer:
                job.started(answer["pid"])
            elif job:
                job.ended(answer["peak_bytes"])
                self.process_ended(job, answer["status"])

    def process_ended(self, job: Job, status: int) -> None:
        """A trial's process has ended: go on with its next, or tell what came of it."""
        if job.phase == "timing" and status == 0:
            job.step_seconds = json.loads(self.file(job, "timing.json").read_text(encoding="utf-8"))["step_seconds"]
            job.phase = "waiting"
            return
        follow(job, self.options, self.base)
        found = ending(job, status, self.file(job, "txt"), self.options.objective[0])
        if found.outcome == "done":
            job.values.append([job.value(column) for column in self.options.objective])
            if len(job.values) < len(job.seeds):
                if not is_worse_over_seeds(job, self.options):
                    job.phase = "waiting"
                    return
                found = Ending("pruned", "worse than the best over the same seeds")
        self.tell(job, found)

    # ---- the end of things ----

    def tell(self, job: Job, found: Ending) -> None:
        self.jobs.remove(job)
        self.book.tell(job, found)

    def abandon(self, reason: str) -> None:
        """End what runs; it is lost, and will be trained when the search goes on."""
        if self.jobs:
            self.starter.close()
            self.predictor.close()
        while self.jobs:
            job = self.jobs.pop()
            job.ended(0)
            tickets.tell_lost(self.study, job.trial, reason)

    def look_around(self) -> None:
        """Stop where that was asked; tell others that this process lives, and of those that do not."""
        self.signals.raise_if_any()
        if time.monotonic() - self.beat >= tickets.HEARTBEAT_SECONDS:
            self.beat = time.monotonic()
            for job in self.jobs:
                job.trial.set_user_attr("heartbeat", time.time())
            tickets.fail_the_dead(self.study)
            tickets.queue_lost(self.study)
            if self.predictor.rss_bytes() > MOST_PREDICTOR_BYTES and not any(job.phase == "predicting"
                                                                             for job in self.jobs):
                self.predictor.close()  # it starts anew with the next question

    # ---- small things ----

    def file(self, job: Job, kind: str) -> Path:
        return self.logs / f"{job.run_name(self.options.name)}.{kind}"

    def write_config(self, job: Job) -> Path:
        path = self.file(job, "config.json")
        save_config(job.cfg, path)
        return path

    def snapshot(self) -> Snapshot:
        trials = self.study.get_trials(deepcopy=False) if self.study else []
        counts = Counter(trial.user_attrs.get("outcome", "lost") for trial in trials if trial.state.is_finished())
        return Snapshot(self.study, list(self.jobs), dict(counts), time.monotonic() - self.began)
