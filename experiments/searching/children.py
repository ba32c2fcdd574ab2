"""Processes that train, some at a time; whatever stops them, each saves what it has."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import runs
from config import Config, diff, save_config
from experiments.searching.service import Service, wait_for_answers
from experiments.searching.signals import Signals
from training.saving import MAY_CHANGE

POLL_SECONDS = 0.5
MODULES = ("train", "experiments.searching.timing", "torch._dynamo")  # optimizers import the last one


@dataclass(frozen=True)
class Task:
    """What a process is to do, and the file for what it says."""

    name: str
    call: str  # module:function
    argv: tuple[str, ...]
    log: Path


class Children:
    """Processes of one starter, which die with this one."""

    def __init__(self, starter: Service, signals: Signals):
        self._starter, self._signals = starter, signals
        self._tasks: dict[int, Task] = {}  # those under way, by the number of their request
        self._pids: dict[int, int] = {}
        self._number = 0

    @classmethod
    @contextmanager
    def started(cls, logs: Path, *, threads: int) -> Iterator["Children"]:
        """For a `with` block, in which SIGINT and SIGTERM are noted; they are obeyed in `run`."""
        starter, signals = Service(
            "experiments.searching.starter", *MODULES, threads=threads, log=logs / "starter.txt"), Signals()
        with signals.listening():
            try:
                yield cls(starter, signals)
            finally:
                starter.close()

    def run(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        """Do them in this order, `jobs` at a time; each comes back as it ends, with its exit status.

        That is negative where a signal ended it. Raises Stopped after SIGINT or SIGTERM, when all have saved and ended.
        """
        waiting = deque(tasks)
        try:
            while waiting or self._tasks:
                self._signals.raise_if_any()
                while waiting and len(self._tasks) < jobs:
                    self._begin(waiting.popleft())
                yield from self._wait()
        finally:
            self._end_all()

    def _begin(self, task: Task) -> None:
        self._number += 1
        self._tasks[self._number] = task
        self._starter.ask({"id": self._number, "call": task.call, "argv": list(task.argv), "log": str(task.log)})

    def _wait(self) -> Iterator[tuple[Task, int]]:
        """What has ended, after a moment in which something may."""
        wait_for_answers([self._starter], POLL_SECONDS)
        for answer in self._starter.answers():
            if "died" in answer:
                lost, self._tasks, self._pids = list(self._tasks.values()), {}, {}
                yield from ((task, -signal.SIGKILL) for task in lost)
            elif "pid" in answer:
                self._pids[answer["id"]] = answer["pid"]
            else:
                self._pids.pop(answer["id"], None)
                yield self._tasks.pop(answer["id"]), answer["status"]

    def _end_all(self) -> None:
        """Have all save and end; a second SIGINT raises KeyboardInterrupt here."""
        told: set[int] = set()
        while self._tasks:
            for number, pid in self._pids.items():
                if number not in told:
                    told.add(number)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
            for _ in self._wait():
                pass


# ---- runs ----


def training(cfg: Config, folder: Path) -> Task:
    """What begins the run that a configuration names, or goes on with it; its log and flags lie in the folder."""
    name = cfg.train.name
    words = ("--resume", name)
    if not is_there(name):
        words = ("--config", str(folder / f"{name}.json"))
        save_config(cfg, folder / f"{name}.json")
    return Task(name, "train:main", words, folder / f"{name}.txt")


def is_there(name: str) -> bool:
    return (runs.MODELS / name / "config.json").is_file()


def is_finished(name: str) -> bool:
    return is_there(name) and runs.Run(name).is_finished


def require_same(cfg: Config) -> None:
    """Raise ValueError where the run that a configuration names is there, and is another."""
    name = cfg.train.name
    if not is_there(name):
        return
    free = {*MAY_CHANGE} - {"train.steps"}
    if cfg.model.vocab_size is None:  # it follows from the tokenizer
        free.add("model.vocab_size")
    for flag, (saved, planned) in diff(runs.Run(name).config, cfg).items():
        if flag not in free:
            raise ValueError(f"{name} is there, and was trained with {flag}={saved}, not {planned}: choose another "
                             "--name, or delete it")
