"""The processes that trials train in: started when there is room, one after the other for the seeds of a trial."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from config import Config, override, save_config
from experiments.processes.children import MODULES, Child, Children, Task
from experiments.searching.jobs import Ending, Job, LogReader, ending
from experiments.searching.lengths import follow, is_worse_over_seeds, length
from experiments.searching.options import Options
from experiments.searching.studies import note, unless_revoked

TIMING = "experiments.processes.step_timing"


class Trainer:
    """Trains trials in processes that share the memory limit."""

    def __init__(self, options: Options, base: Config, call: str, logs: Path):
        self._options, self._base, self._call, self._logs = options, base, call, logs
        modules = (call.partition(":")[0], *MODULES)
        self.children = Children(logs / "fork_server.txt", threads=options.threads, modules=modules)

    def start_waiting(self, jobs: Sequence[Job], limit_bytes: int) -> None:
        """Start the trials for which there is room, oldest first."""
        for job in jobs:
            if job.phase == "waiting":
                if sum(other.granted_bytes for other in jobs if other.child) + job.granted_bytes > limit_bytes:
                    return
                self._begin(job)

    @unless_revoked
    def _begin(self, job: Job) -> None:
        """Start the next process of a trial; if trials get equal time, the first one measures its speed."""
        job.cfg = override(job.cfg, job.prediction["shrunk"] | {"train.seed": job.seeds[len(job.values)]})
        if self._options.trial_seconds and job.step_seconds is None:
            job.phase = "timing"
            words = (str(self._write_config(job)), job.prediction["allocator"], str(self._file(job, "timing.json")))
            return self._fork(job, f"{TIMING}:main", words)
        flags, name = length(self._options, self._base, job.cfg, job.step_seconds), job.run_name(self._options.name)
        job.phase, job.reader = "training", LogReader(name)
        limit = f"{job.granted_bytes // 10**6}MB"
        job.cfg = override(job.cfg, flags | {"train.name": name, "train.memory_limit": limit})
        if not job.values:
            steps = {"train.steps": flags["train.steps"]} if flags["train.steps"] != self._base.train.steps else {}
            note(job.trial, flags=job.flags | steps, run=name)
        self._fork(job, self._call, ("--config", str(self._write_config(job))))

    def _fork(self, job: Job, call: str, words: tuple[str, ...]) -> None:
        job.reported = -1
        job.child = self.children.begin(
            Task(job.run_name(self._options.name), call, words, self._file(job, "txt"), job.granted_bytes))

    def ended(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Ending]]:
        """The trials that have ended since the last call, and how; the others go on with their next process."""
        by_child = {job.child: job for job in jobs if job.child}
        for child in self.children.ended():
            if (job := by_child.get(child)) is None:
                continue  # another process has failed its trial
            job.ended(child)
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
        return self._logs / f"{job.run_name(self._options.name)}.{kind}"

    def _write_config(self, job: Job) -> Path:
        path = self._file(job, "config.json")
        save_config(job.cfg, path)
        return path
