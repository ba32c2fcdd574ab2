"""Child processes side by side: what they call, when they end, and how."""

import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from experiments.processes.gpus import AS_IT_IS, VISIBLE, least_loaded
from experiments.processes.signals import Signals
from experiments.processes.worker import Worker, wait_for_answers
from memory_prediction.process import Watchdog

POLL_SECONDS = 0.5
MODULES = ("torch._dynamo", "matplotlib.figure", "train", "experiments.processes.step_timing")


@dataclass(frozen=True)
class Task:
    """What a child is to do, and the file for what it prints."""

    name: str
    call: str  # module:function
    argv: tuple[str, ...]
    log: Path
    limit_bytes: int | None = None  # resident memory beyond which it is killed; None = no limit
    gpus: Sequence[str] = (AS_IT_IS,)  # it sees one of them: see gpus.py


@dataclass(eq=False)
class Child:
    """A process that does a task."""

    task: Task
    gpu: str = AS_IT_IS  # that it sees
    pid: int | None = None  # None = not forked yet, or ended
    status: int | None = None  # exit status, negative if a signal ended it; None = it runs
    peak_bytes: int = 0
    seconds: float = 0.0  # how long it ran
    ended_by: str | None = None  # why this program sent it a signal
    began: float = field(default_factory=time.monotonic)
    watchdog: ExitStack = field(default_factory=ExitStack)

    def send(self, number: signal.Signals, reason: str) -> None:
        """Send a signal, once, and remember why."""
        if self.pid is not None and self.ended_by is None:
            self.ended_by = reason
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def started(self, pid: int) -> None:
        """Hold the process to its limit."""
        self.pid = pid
        if self.task.limit_bytes is not None:
            self.watchdog.enter_context(
                Watchdog(pid, self.task.limit_bytes, lambda _: self.send(signal.SIGKILL, "watchdog")))

    def ended(self, status: int, peak_bytes: int) -> None:
        self.watchdog.close()
        self.pid, self.status, self.peak_bytes = None, status, peak_bytes
        self.seconds = time.monotonic() - self.began


class Children:
    """The children of one fork server; they die with this process."""

    def __init__(self, log: Path, *, threads: int, modules: Sequence[str] = MODULES):
        self.server = Worker("experiments.processes.fork_server", *modules, threads=threads, log=log)
        self.signals, self._numbers = Signals(), itertools.count()
        self._running: dict[int, Child] = {}

    @classmethod
    @contextmanager
    def started(cls, logs: Path, *, threads: int) -> Iterator["Children"]:
        """A `with` block in which SIGINT and SIGTERM are noted; `run` obeys them."""
        logs.mkdir(parents=True, exist_ok=True)
        children = cls(logs / "fork_server.txt", threads=threads)
        with children.signals.listening():
            try:
                yield children
            finally:
                children.close()

    def begin(self, task: Task) -> Child:
        """Start a child; `ended` gives it back."""
        running = [child.gpu for child in self._running.values()]
        gpu = least_loaded({gpu: [0] * running.count(gpu) for gpu in task.gpus})
        number, child = next(self._numbers), Child(task, gpu)
        self._running[number] = child
        environment = {} if gpu == AS_IT_IS else {VISIBLE: gpu}
        self.server.ask({"id": number, "call": task.call, "argv": list(task.argv), "log": str(task.log),
                         "environment": environment})
        return child

    def ended(self) -> list[Child]:
        """The children that have ended since the last call."""
        found = []
        for answer in self.server.answers():
            if "died" in answer:
                found += self._end_with_server()
            elif "pid" in answer:
                self._running[answer["id"]].started(answer["pid"])
            else:
                found.append(self._running.pop(answer["id"]))
                found[-1].ended(answer["status"], answer["peak_bytes"])
        return found

    def _end_with_server(self) -> list[Child]:
        """Children die with their server, as if they were killed from outside."""
        lost, self._running = list(self._running.values()), {}
        for child in lost:
            child.ended(-signal.SIGKILL, 0)
        return lost

    def close(self) -> None:
        """Kill the children and the server."""
        self.server.close()
        self._end_with_server()

    def run(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        """Do tasks in this order, `jobs` at a time; give each with its exit status when it has ended.

        Raises Stopped after SIGINT or SIGTERM, when all have saved and ended.
        """
        waiting = deque(tasks)
        try:
            while waiting or self._running:
                self.signals.raise_if_any()
                while waiting and len(self._running) < jobs:
                    self.begin(waiting.popleft())
                wait_for_answers([self.server], POLL_SECONDS)
                yield from ((child.task, child.status) for child in self.ended())
        finally:
            self._terminate()

    def _terminate(self) -> None:
        """Send SIGTERM and wait until all have saved; a second SIGINT raises KeyboardInterrupt here."""
        while self._running:
            for child in self._running.values():
                child.send(signal.SIGTERM, "stopped")
            wait_for_answers([self.server], POLL_SECONDS)
            self.ended()


def last_line(log: Path) -> str:
    """The last line that a process printed; "" = it printed nothing."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        if lines := file.read().decode(errors="replace").strip().splitlines():
            return lines[-1].strip()
    return ""
