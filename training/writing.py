"""Write the checkpoints of a run: at once, or in a thread from a copy, so that training goes on meanwhile."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

from torch import nn

from configuration.command_line import warn
from run_store.checkpoint import Progress
from run_store.checkpoint_files import NotWritten
from run_store.parts import all_sent
from runs import Run
from training.group import Group
from training.snapshot import Lasting, Snapshot
from training.stopping import Stop

Place = tuple[int, int]  # steps taken, steps logged
GOES_ON = "; training goes on, and tries the next one as usual"


def place_of(progress: Progress) -> Place:
    return progress.step, progress.logged_steps


class Writer:
    """Writes one checkpoint after the other; `saved` is the place of the newest. A refusal by the disk is a warning.

    In a group the first process writes. The others send it their parts of what lies in parts in all of them.
    """

    def __init__(self, run: Run, stop: Stop, group: Group, saved: Place | None):
        self.run, self.stop, self.group, self.saved = run, stop, group, saved
        self._thread: Executor | None = None
        self._wait: Callable[..., None] | None = None  # for the checkpoint that is being written

    @contextlib.contextmanager
    def in_background(self, copies: bool) -> Iterator[None]:
        """A block in which a thread writes checkpoints, if they are copied; its end waits for the last one."""
        if not copies:
            yield
            return
        with ThreadPoolExecutor(1, "checkpoints") as self._thread:
            try:
                yield
            finally:
                self._thread = None
                self.finish(then="")

    def write(self, lasting: Lasting, progress: Progress, *, at_once: bool = False) -> None:
        """Write a checkpoint, or have it written. Call `finish` first. Raises NotWritten if it is written `at_once`."""
        place = place_of(progress)
        if not self.group.is_first and isinstance(lasting.model, nn.Module):  # the first has all
            self.saved = place
            return
        if self._thread and not at_once:
            snapshot = Snapshot.of(lasting, progress)
            self._wait = partial(self._note, self._thread.submit(self._save, self.stop.save(), snapshot).result, place)
            return
        snapshot = Snapshot(lasting.model, lasting.optimizer, progress, lasting.average)
        write = partial(self._save, self.stop.save(), snapshot)
        if at_once:
            write()
            self.saved = place
        else:
            self._note(write, place)

    def finish(self, then: str = GOES_ON) -> None:
        """Wait for the checkpoint that is being written, if there is one."""
        wait, self._wait = self._wait, None
        if wait:
            wait(then=then)

    def newest(self) -> str:
        """A half sentence on the newest checkpoint."""
        saved = self.run.checkpoints()
        return f"the newest checkpoint is that of step {saved[-1].step}" if saved else "there is no checkpoint yet"

    def _save(self, timed: AbstractContextManager[None], snapshot: Snapshot) -> None:
        with timed, all_sent(snapshot.parts()):
            if self.group.is_first:
                self.run.save(*snapshot)

    def _note(self, write: Callable[[], None], place: Place, *, then: str = GOES_ON) -> None:
        try:
            write()
            self.saved = place
        except NotWritten as error:
            warn(f"{error}: {self.newest()}{then}")
