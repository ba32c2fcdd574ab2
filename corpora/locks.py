"""A lock between processes, held on a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Make a folder of results and be the only process that works on it. Raises ValueError if another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".shapeshifter-lock") as ours:
        if not ours:
            raise ValueError(f"name={name} is being worked on by another process: wait until that has ended")
        yield


@contextlib.contextmanager
def locked(path: Path, console: Console | None = None) -> Iterator[bool]:
    """Hold a lock file, and delete it at the end; the system releases the lock if the process dies.

    If another process holds it: with a console, say so and wait for it; without one, yield False.
    """
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if console is None:
            yield False
            return
        console.print("another process encodes the same text: waiting for it", highlight=False)
        lock.acquire()
    try:
        yield True
    finally:
        path.unlink()
        lock.release()
