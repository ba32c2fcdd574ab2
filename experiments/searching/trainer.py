"""The processes that trials train in: started when there is room, one after the other for the seeds of a trial."""

import json
import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import Config, override, save_config
from experiments.processes.children import MODULES, Child, Children, Task
from experiments.processes.gpus import least_loaded, visible_gpus
from experiments.searching.jobs import Ending, Job, LogReader, ending
from experiments.searching.options import EVALUATIONS, Options
from experiments.searching.studies import note, unless_revoked
from optimizing.schedules import Schedule
from tools import pick_device

UNCOUNTED = {"train.tokens": None, "train.epochs": None}  # a trial's steps are settled
TIMING = "experiments.processes.step_timing"


class Trainer:
    """Trains trials in processes that share the memory limit, on each GPU those that see it."""

    def __init__(self, options: Options, base: Config, call: str, logs: Path):
        self._options, self._base, self._call, self._logs = options, base, call, logs
        modules = (call.partition(":")[0], *MODULES)
        self.children = Children(logs / "fork_server.txt", threads=options.threads, modules=modules)
        self._gpus = visible_gpus(base.train.device)
        self._is_on_gpu = pick_device(base.train.device).type == "cuda"

    def start_waiting(self, jobs: Sequence[Job], limit_bytes: int) -> None:
        """Start the trials for which there is room, oldest first."""
        for job in jobs:
            if job.phase == "waiting":
                held = {gpu: [other.granted_bytes for other in jobs if other.child and other.child.gpu == gpu]
                        for gpu in self._gpus}
                gpu = least_loaded(held, job.granted_bytes, limit_bytes)
                if gpu is None:
                    return
                self._begin(job, gpu)

    @unless_revoked()
    def _begin(self, job: Job, gpu: str) -> None:
        """Start the next process of a trial; if trials get equal time, the first one measures its speed."""
        job.cfg = override(job.cfg, job.prediction["shrunk"] | {"train.seed": job.seeds[len(job.values)]})
        if self._options.trial_seconds and job.step_seconds is None:
            job.phase = "timing"
            return self._fork(job, gpu, f"{TIMING}:main", self._write_config(job), job.prediction["allocator"],
                              str(self._file(job, "timing.json")))
        cfg, name = override(job.cfg, {"train.steps": job.prediction["steps"]} | UNCOUNTED), job.run_name
        flags = length(self._options, self._base, cfg, job.step_seconds) | UNCOUNTED
        job.phase, job.reader = "training", LogReader(name)
        limit = f"{job.granted_bytes // 10**6}MB"
        job.cfg = override(job.cfg, flags | {"train.name": name, "train.memory_limit": limit})
        if not job.values:
            steps = {"train.steps": flags["train.steps"]} if flags["train.steps"] != self._base.train.steps else {}
            note(job.trial, flags=job.flags | steps, run=name)
        self._fork(job, gpu, self._call, "--config", self._write_config(job))

    def _fork(self, job: Job, gpu: str, call: str, *words: str) -> None:
        job.reported = -1
        limit_bytes = None if self._is_on_gpu else job.granted_bytes  # there torch holds the process to its limit
        job.child = self.children.begin(Task(job.run_name, call, words, self._file(job, "txt"), limit_bytes, (gpu,)))

    def ended(self, children: Sequence[Child], jobs: Sequence[Job]) -> Iterator[tuple[Job, Ending]]:
        """The trials that end with these children, and how; the others go on with their next process."""
        by_child = {job.child: job for job in jobs if job.child}
        for child in children:
            if (job := by_child.get(child)) is None:
                continue  # the one that predicts, or another process has failed its trial
            job.ended(child, on_gpu=self._is_on_gpu)
            if found := self._timed(job, child) if job.phase == "timing" else self._trained(job, child):
                yield job, found

    def _timed(self, job: Job, child: Child) -> Ending | None:
        if child.status:
            return ending(job, child, None)
        job.step_seconds = json.loads(self._file(job, "timing.json").read_text(encoding="utf-8"))["step_seconds"]
        job.phase = "waiting"
        return None

    def _trained(self, job: Job, child: Child) -> Ending | None:
        objectives = self._options.objective
        follow(job, self._options, self._base)  # what it logged last
        found = ending(job, child, objectives[0])
        if found.outcome != "done":
            return found
        job.values.append([job.value(column) for column in objectives])
        if len(job.values) == len(job.seeds):
            return found
        if is_worse_over_seeds(job, self._options):
            return Ending("pruned", "worse than the best over the same seeds")
        job.phase = "waiting"
        return None

    def _file(self, job: Job, kind: str) -> Path:
        return self._logs / f"{job.run_name}.{kind}"

    def _write_config(self, job: Job) -> str:
        path = self._file(job, "config.json")
        save_config(job.cfg, path)
        return str(path)


@unless_revoked()
def follow(job: Job, options: Options, base: Config) -> None:
    """Read what a run has logged; report its evaluations, and end it if the pruner says so."""
    column = options.objective[0]
    for line in job.reader.new_lines() if job.phase == "training" else ():
        if column not in line or "val_loss" not in line or options.settled_pruner in ("none", "wilcoxon"):
            continue
        at = mark(options, base, job.cfg, line)
        if at > job.reported and math.isfinite(line[column]):
            job.trial.report(line[column], at)
            job.reported = at
            if line["step"] < job.cfg.train.steps and job.trial.should_prune():
                job.child.send(signal.SIGTERM, "pruning")


@unless_revoked()
def is_worse_over_seeds(job: Job, options: Options) -> bool:
    """Whether the seeds so far show that a trial is worse than the best."""
    if options.settled_pruner != "wilcoxon":
        return False
    job.trial.report(job.values[-1][0], len(job.values) - 1)
    return job.trial.should_prune()


# ---- how long a trial trains, and at which marks trials are compared ----


def length(options: Options, base: Config, cfg: Config, step_seconds: float | None) -> dict[str, Any]:
    """The flags that give a trial its steps and its evaluations; `step_seconds` is what step_timing measured."""
    step_tokens = cfg.train.batch_size * cfg.train.accumulation * cfg.row_len
    steps = cfg.train.steps
    if options.trial_tokens:
        steps = Schedule(cfg, rows_per_epoch=1).steps_for(options.trial_tokens)
    elif options.trial_seconds:
        steps = max(EVALUATIONS, round(options.trial_seconds / step_seconds))
    every = steps / EVALUATIONS if options.trial_seconds else _tokens_between_marks(options, base) / step_tokens
    return {"train.steps": steps, "train.eval_every": max(1, math.floor(every)), "train.checkpoint_every": steps,
            "train.sample_every": steps, "train.keep_checkpoints": 1}


def mark(options: Options, base: Config, cfg: Config, line: dict[str, float]) -> int:
    """The position of a line of the log, in tenths of the trial's time, or of the tokens that the base trains on."""
    if options.trial_seconds:
        return round(EVALUATIONS * line["step"] / cfg.train.steps)
    return round(line["tokens"] / _tokens_between_marks(options, base))


def _tokens_between_marks(options: Options, base: Config) -> float:
    tokens = options.trial_tokens or base.train.tokens
    return (tokens or Schedule(base, rows_per_epoch=1).tokens_before(base.train.steps)) / EVALUATIONS
