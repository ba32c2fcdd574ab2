"""The lock of a run: at most one process trains, removes or prunes it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows: runs can be read, not trained
    fcntl = None

TIMEOUT = 0.1  # seconds; `is_being_trained` holds the lock for a moment


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that changes a run; the system releases the lock if the process dies.

    Raises ValueError if another process holds it. A run without data.json cannot be trained, and needs no lock.
    """
    if not (path / "data.json").is_file():
        yield
        return
    from filelock import FileLock, Timeout  # takes 30 ms, which help and lists of runs do not need

    # data.json is never replaced; a soft lock would write into it, and outlive a killed process
    lock = FileLock(path / "data.json", timeout=TIMEOUT, poll_interval=TIMEOUT / 4, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{path.name} is being trained by another process: wait until that has ended, "
                         "or stop it first") from None
    try:
        yield
    finally:
        lock.release()


def is_being_trained(path: Path) -> bool:
    """Whether another process holds the lock. Read permission is enough, and several may ask at once."""
    if fcntl is None or not (path / "data.json").is_file():
        return False
    with (path / "data.json").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # filelock has no shared lock
        except BlockingIOError:
            return True
    return False
