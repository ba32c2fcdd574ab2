"""Append-only files: bytes that the disk refuses wait in memory, in order, until there is space."""

import contextlib
import os
import threading
from pathlib import Path

from configuration.command_line import warn
from run_store.atomic_files import flush


class AppendLog:
    """Appends bytes to files. A full disk is reported once and never raised; every later call tries again.

    One thread may append while another one flushes.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._waiting: dict[Path, bytes] = {}
        self._written: set[Path] = set()  # files written since the last flush

    def first_line(self, path: Path) -> str:
        """The first line of a file once all is written; "" if nothing was appended yet."""
        with self._lock:
            with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
                if line := file.readline():
                    return line.rstrip("\n")
            return self._waiting.get(path, b"").decode().partition("\n")[0]

    def append(self, path: Path, data: bytes) -> None:
        """Append bytes to a file: all of them or, for now, none."""
        with self._lock:
            was_refused = bool(self._waiting)
            self._waiting[path] = self._waiting.get(path, b"") + data
            problem = self.write()
        if problem and not was_refused:
            warn(f"{problem}; training goes on, and tries again each time")

    def write(self) -> str | None:
        """Write the bytes that wait; return a sentence on those still refused, None = nothing waits."""
        reasons = {}
        for path, data in list(self._waiting.items()):
            try:
                append_whole(path, data)
            except OSError as error:
                reasons[error.strerror] = None
            else:
                del self._waiting[path]
                self._written.add(path)
        if not reasons:
            return None
        return (f"{', '.join(map(str, self._waiting))} cannot be written ({', '.join(reasons)}): "
                f"{sum(map(len, self._waiting.values())):,} bytes wait in memory")

    def flush(self) -> None:
        """Write the bytes that wait, if there is space, and flush all files to the disk."""
        with self._lock:
            self.write()
            written, self._written = self._written, set()
        for path in written:
            flush(path)


def append_whole(path: Path, data: bytes) -> None:
    """Append bytes to a file; after an OSError it is as long as before."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    before = os.fstat(handle).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest):]
    except OSError:
        os.ftruncate(handle, before)
        raise
    finally:
        os.close(handle)
