"""Locks between processes, on files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where saved runs can be used, and nothing is trained
    fcntl = None


@contextlib.contextmanager
def locked(path: Path, console: Console | None = None) -> Iterator[bool]:
    """Hold a lock, waiting for it where a console is given to say so; False where another holds it, and none is.

    The system lets go of it when a process dies, however it does.
    """
    if fcntl is None:
        raise ValueError("encoding text needs the file locks of fcntl, which this system lacks: "
                         "use Linux, macOS or WSL")
    while True:
        with open(path, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if console is None:
                    yield False
                    return
                console.print("another process encodes the same text: waiting for it", highlight=False)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not is_at(file, path):
                continue  # the one before has removed it
            try:
                yield True
            finally:
                path.unlink()
            return


def is_at(file: IO, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
