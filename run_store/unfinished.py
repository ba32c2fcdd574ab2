"""Folders that get their name when they are complete, or are removed. What a killed process leaves can be told.

A folder is written under a private name, .NAME.xxxxxxxx.tmp. It holds a marker, on which its maker keeps a lock. So a
folder with a marker is ours, and one whose marker nobody locks is abandoned. Nothing else is ever removed.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from run_store.atomic_files import PRIVATE, flush, flush_tree, private_name
from run_store.lock import fcntl

MARKER = ".shapeshifter-unfinished"


@contextlib.contextmanager
def private_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, whose parents are made too; it is deleted at the end unless it is published.

    Raises OSError, and leaves the rest as an abandoned one, if the disk refuses to delete it.
    """
    folder, marker = _marked_folder(path)
    with marker:
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(OSError):
                _delete(folder)
            raise
        _delete(folder)


def _marked_folder(path: Path) -> tuple[Path, IO]:
    """(a private folder, its locked marker)."""
    while True:
        folder = private_name(path)
        folder.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # taken for an abandoned one before it had its lock
            marker = open(folder / MARKER, "x")  # noqa: SIM115, it stays open
            if fcntl is not None:
                fcntl.flock(marker, fcntl.LOCK_EX)
            if (folder / MARKER).exists():
                return folder, marker


def _delete(folder: Path) -> None:
    """Delete what a private folder holds, its marker last; nothing if it has been published."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    (folder / MARKER).unlink()
    folder.rmdir()


def publish(folder: Path, path: Path) -> None:
    """Flush a private folder to the disk, then give it its name. Raises FileExistsError if the name is taken."""
    flush_tree(folder)
    if os.path.lexists(path):  # a rename would replace an empty folder
        raise FileExistsError(f"{path} is there already")
    try:
        folder.rename(path)
    except OSError as error:
        if not os.path.lexists(path):
            raise
        raise FileExistsError(f"{path} is there already") from error  # another process was faster
    (path / MARKER).unlink()
    flush(path.parent)


def abandoned(parent: Path) -> Iterator[Path]:
    """The private folders in a folder whose makers have died."""
    for folder in sorted(path for path in parent.glob(".*.tmp") if PRIVATE.fullmatch(path.name)):
        if fcntl is None or folder.is_symlink() or not folder.is_dir():
            continue
        if not any(folder.iterdir()):
            yield folder
        with contextlib.suppress(OSError), open(folder / MARKER) as marker:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder


def remove(path: Path) -> None:
    """Delete a folder or a link to one; it loses its name first, so that nobody sees half of it."""
    with private_folder(path) as doomed:
        path.rename(doomed / path.name)
