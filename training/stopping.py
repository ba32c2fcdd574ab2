"""End training early on a signal or at a time limit, never in the middle of a step or a save."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.group import ALONE, Group

MARGIN = 1.5  # how much longer a step or a save may take than the longest recent one
SPARE_SECONDS = 2.0  # for the process to exit on a busy machine
AGAIN = 1.0  # seconds until Stopped is raised once more, unless it was heard
SAVED_BYTES_PER_SECOND = 1e8  # assumed until the first save is measured
PR_SET_PDEATHSIG = 1  # prctl(2)
EXIT_STATUS = {"SIGINT": 130, "SIGTERM": 143, "time limit": 0}


class Stopped(BaseException):  # so that no `except Exception` catches it
    """Raised when training may end: a signal came, or the time is up."""


class Stop:
    """Notes SIGINT, SIGTERM and the end of a time limit, and raises Stopped when it is safe.

    `cause` is what came first: "SIGINT", "SIGTERM" or "time limit". The limit is `seconds` (None = no limit), of which
    `spent` are already used; it leaves time for a save.
    """

    def __init__(self, seconds: float | None = None, *, spent: float = 0.0, group: Group = ALONE):
        self.cause: str | None = None
        self._group = group
        self._end = None if seconds is None else time.monotonic() + seconds - spent
        self._steps: deque[float] = deque(maxlen=20)  # seconds of each
        self._saves: deque[float] = deque(maxlen=3)
        self._is_saving = False
        self._may_raise = False

    def expect_saves_of(self, num_bytes: int) -> None:
        """Set the size of a save, for an estimate until the first one is measured."""
        self._saves.append(num_bytes / SAVED_BYTES_PER_SECOND)

    def before_step(self) -> None:
        """Raise Stopped if no further step should begin, or if it would end too late."""
        self._note_end(max(self._steps, default=0.0))
        known = (None, *sorted(EXIT_STATUS, key=EXIT_STATUS.get))
        self.cause = known[self._group.most(known.index(self.cause))]
        self._raise_if_stopped()

    def after_step(self, seconds: float) -> None:
        """Note how long a step took."""
        self._steps.append(seconds)

    def save(self) -> contextlib.AbstractContextManager[None]:
        """A block, of any thread, at whose end a save is done that begins now; it is not interrupted."""
        self._is_saving = True
        return self._until_saved(time.monotonic())

    @contextlib.contextmanager
    def _until_saved(self, began: float) -> Iterator[None]:
        try:
            yield
        finally:
            self._is_saving = False
        self._saves.append(time.monotonic() - began)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise Stopped at once inside the block, which may be left unfinished, such as an evaluation.

        In a group only between steps: the others would wait for the one that has left.
        """
        if self._group.size > 1:
            yield
            return
        self._may_raise = True
        try:
            self._note_end()
            self._raise_if_stopped()
            if self._end is not None and _in_main_thread():
                signal.setitimer(signal.ITIMER_REAL, max(self._seconds_left(), 1e-3))
            yield
        finally:
            self._may_raise = False
            if _in_main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Note the signals inside the block; a second SIGINT interrupts at once.

        Outside the main thread there are no signals, and the limit acts only between steps.
        """
        return _handled_by(self._note) if _in_main_thread() else contextlib.nullcontext()

    def _seconds_left(self, *, for_a_step: float = 0.0) -> float:
        """Until a save must begin, after a step that takes `for_a_step` and the save that may be going on."""
        saves = (1 + self._is_saving) * max(self._saves, default=0.0)
        reserved = MARGIN * (for_a_step + saves) + SPARE_SECONDS
        return self._end - reserved - time.monotonic()

    def _note_end(self, for_a_step: float = 0.0) -> None:
        if self.cause is None and self._end is not None and self._seconds_left(for_a_step=for_a_step) <= 0:
            self.cause = "time limit"

    def _raise_if_stopped(self) -> None:
        if self.cause is not None:
            raise Stopped

    def _note(self, number: int, _) -> None:
        if number == signal.SIGINT and self.cause in ("SIGINT", "SIGTERM") and self._group.size == 1:
            raise KeyboardInterrupt  # torchrun passes on what its processes have heard themselves
        self.cause = self.cause or ("time limit" if number == signal.SIGALRM else signal.Signals(number).name)
        if self._may_raise:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)  # Python drops what is raised while an object is finalized
            raise Stopped


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def process_seconds() -> float:
    """The age of this process; 0 if the system is not Linux."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return 0.0
    start_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")


def follow_parent(number: int) -> None:
    """Have the system send this process a signal when the one that started it ends, however it ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
