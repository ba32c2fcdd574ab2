"""Atomic writes, flushes to the disk, and SHA-256 sums of files."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from configuration.reading import open_file, read_text

CHECKPOINT = ("model.safetensors", "optimizer.pt", "progress.json")  # files of every checkpoint
SUMS = "SHA256SUMS"  # of a folder's other files, in the format of `sha256sum --check`
PRIVATE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # names of `private_name`


def private_name(path: Path) -> Path:
    """A name beside `path` that nobody else has, for what is being written."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder: Path) -> list[tuple[str, str]]:
    """(SHA-256, name) of each file that was saved in a folder. Raises ValueError if the sums cannot be read."""
    try:
        lines = read_text(folder / SUMS).splitlines()
    except ValueError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None
    if any(len(line.split()) != 2 for line in lines):
        raise ValueError(f"{folder} is damaged: {SUMS} is not as it was saved")
    return [tuple(line.split()) for line in lines]


def verified(folder: Path, name: str) -> Path:
    """The path of a file in a folder. Raises ValueError if its SHA-256 is not as it was saved."""
    try:
        is_intact = (sha256(folder / name), name) in read_sums(folder)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith(str(folder)) else f"{folder} is damaged: {said}") from None
    if not is_intact:
        raise ValueError(f"{folder} is damaged: {name} is not as it was saved")
    return folder / name


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None = nothing."""
    try:
        for name in dict.fromkeys([*CHECKPOINT, *(name for _, name in read_sums(checkpoint))]):
            verified(checkpoint, name)
    except ValueError as error:
        return str(error)
    return None


def write_text(path: Path, text: str) -> None:
    """Replace the text of a file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file atomically. Raises OSError, with the file's name, and keeps the old content."""
    unfinished = private_name(path)
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
        flush(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    flush(path.parent)


def flush_tree(folder: Path) -> None:
    """Flush a folder, and all files in it, to the disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
