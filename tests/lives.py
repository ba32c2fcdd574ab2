"""Lives and deaths of training processes, and what a run must be after any number of them."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from rich.console import Console
from small_runs import assert_same_run

import runs
from config import Config
from runs import Run
from train import Interrupted, train

QUIET = Console(quiet=True)


class Process(Protocol):
    """What a started program and a fork have in common."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...


class Fork:
    """A function in a process of its own, which starts at once; the status is 1 where it raises."""

    def __init__(self, function: Callable[[], object]):
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        return self._status if self._status is not None else self._reap(os.WNOHANG)

    def wait(self) -> int:
        return self._status if self._status is not None else self._reap(0)

    def _reap(self, how: int) -> int | None:
        pid, status = os.waitpid(self.pid, how)
        if pid:
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


def interrupt(*_, **__) -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_and_resumed(
    begin: Callable[[], Run], at_step: Callable[[int, Callable], None], models: Path, *, step: int = 11,
) -> Run:
    """The run "toy", interrupted at a step and resumed: it is the one that never stopped, models/expected."""
    kept = begin().path.rename(models / "expected")
    at_step(step, interrupt)
    with pytest.raises(Interrupted):
        begin()
    resumed = train(Run("toy").config, run=Run("toy"), console=QUIET)
    assert_same_run(resumed, Run(kept))
    return resumed


def begin_or_go_on(cfg: Config) -> Fork:
    """Train the run "toy" in a process of its own, from its newest checkpoint where it has begun."""
    run = Run("toy") if "toy" in runs.saved_runs() else None
    return Fork(lambda: train(cfg, run=run, console=QUIET))


def die_at_disk_event(number: int) -> None:
    """SIGKILL this process at its so manieth rename, flush, delete or write of a log line."""
    events = count(1)

    def deadly(function):
        def act(*args, **kwargs):
            if next(events) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return act

    for name in ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    Run.append, Run.append_samples = deadly(Run.append), deadly(Run.append_samples)


def wait_until(process: Process, sign: Callable[[], object]) -> None:
    """Return when there is a sign; the process must live to give it."""
    until = time.monotonic() + 100
    while not sign():
        assert process.poll() is None, "it ended before the sign"
        assert time.monotonic() < until
        time.sleep(0.001)


def wait_for_step(process: Process, step: int) -> None:
    """Return when a log with a line for every step has come to this one."""
    log = runs.MODELS / "toy" / "log.csv"
    wait_until(process, lambda: log.exists() and log.read_text().count("\n") > step)


def half_saved() -> list[Path]:
    """The checkpoints that are being written."""
    return list(runs.MODELS.glob("toy/checkpoints/.step_????????.????????.tmp"))


def stop_in_a_save(process: Process, drawn: random.Random) -> None:
    """Have the process stand still somewhere in the writing of a checkpoint."""
    while True:
        wait_until(process, half_saved)
        time.sleep(drawn.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        if half_saved():
            return
        os.kill(process.pid, signal.SIGCONT)  # that one was whole already


def kill(process: Process) -> None:
    """SIGKILL, which must find it alive."""
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def kill_somewhere(process: Process, step: int, drawn: random.Random, *, in_a_save: bool) -> None:
    """Kill at a moment drawn at random after a step is logged, within a save or wherever it is."""
    wait_for_step(process, step)
    if in_a_save:
        stop_in_a_save(process, drawn)
    else:
        time.sleep(drawn.uniform(0, 0.05))
    kill(process)
    assert bool(half_saved()) or not in_a_save


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit, however nested."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_checkpoints(run: Run, expected: Run) -> None:
    """The same steps, and in each the same state of the optimizer, the random numbers and the rest."""
    for ours, theirs in zip(run.checkpoints(), expected.checkpoints(), strict=True):
        assert asdict(ours.progress) | {"seconds": 0} == asdict(theirs.progress) | {"seconds": 0}
        assert same(*(torch.load(c.path / "optimizer.pt", weights_only=True) for c in (ours, theirs)))
