"""Files whole or not at all: written, on the disk, and told by their content."""

import hashlib
import os
from pathlib import Path

CHECKPOINT = ("model.safetensors", "optimizer.pt", "progress.json")  # what no checkpoint is without
SUMS = "SHA256SUMS"  # of a folder's other files, as `sha256sum --check` reads them

def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder: Path) -> list[tuple[str, str]]:
    """(SHA-256, name) of each file that a folder was saved with. Raises ValueError where that cannot be read."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from None
    if any(len(line.split()) != 2 for line in lines):
        raise ValueError(f"{folder} is damaged: {SUMS} is not as it was saved")
    return [tuple(line.split()) for line in lines]


def verified(folder: Path, name: str) -> Path:
    """A file of a folder. Raises ValueError where it is not what was saved."""
    try:
        is_whole = (sha256(folder / name), name) in read_sums(folder)
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None
    if not is_whole:
        raise ValueError(f"{folder} is damaged: {name} is not as it was saved")
    return folder / name


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None = all are what was saved."""
    try:
        for name in dict.fromkeys([*CHECKPOINT, *(name for _, name in read_sums(checkpoint))]):
            verified(checkpoint, name)
    except ValueError as error:
        return str(error)
    return None


def write_text(path: Path, text: str) -> None:
    """Replace a file's text, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content, whole or not at all. Raises OSError with the file's name, the old content kept."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(data)
        flush(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    flush(path.parent)


def flush_tree(folder: Path) -> None:
    """Have a folder and all that is in it on the disk before going on."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Have a file or a folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
