"""Text files, plain or compressed; facts about files, cached."""

import codecs
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from corpora.chunks import Chunk, drop_blank, split_documents
from run_store.atomic_files import write_text

BLOCK_BYTES = 1 << 18
MIN_AGE_NS = 2 * 10**9  # more than the timestamp granularity of any file system in use
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}  # suffix -> the name that pyarrow has for it


def uncompressed(path: Path) -> Path:
    """The path without the .gz or .zst at its end."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


class HashedFile:
    """A file that is read from its start, with the SHA-256 of what was read."""

    closed = False

    def __init__(self, file: IO[bytes]):
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.sha256.update(block)
        return block

    def close(self) -> None:
        """Nothing: who has opened the file closes it."""


def byte_blocks(file: IO[bytes] | HashedFile, path: Path) -> Iterator[bytes]:
    """The content of a file in blocks of at most BLOCK_BYTES, decompressed if its name ends in .gz or .zst.

    Several streams may follow each other, as `cat a.gz b.gz` writes them. Raises ValueError if a compressed file is
    damaged or truncated.
    """
    kind = COMPRESSED.get(path.suffix.lower())
    if kind is None:
        yield from iter(lambda: file.read(BLOCK_BYTES), b"")
        return
    import pyarrow

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), kind)
    while block := decompressed_block(stream, path):
        yield block


def decompressed_block(stream: Any, path: Path) -> bytes:
    """The next BLOCK_BYTES of a compressed stream, of which a few bytes may stand for gigabytes."""
    try:
        return stream.read(BLOCK_BYTES)
    except OSError as error:
        raise ValueError(f"{path} cannot be decompressed ({error}): compress it again") from error


def text_blocks(file: IO[bytes] | HashedFile, path: Path) -> Iterator[str]:
    """The text of a UTF-8 file, block by block. Raises ValueError if it is not UTF-8."""
    decoder, num_bytes = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        for block in byte_blocks(file, path):
            waiting = len(decoder.getstate()[0])  # bytes of a character that the last block cut
            yield decoder.decode(block)
            num_bytes += len(block)
        waiting = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {num_bytes - waiting + error.start}): "
                         "convert it first") from error


@dataclass(frozen=True)
class Scan:
    """What one pass over a text file tells. Blank documents do not count."""

    sha256: str
    num_documents: int
    num_chars: int
    num_separators: int


def read_documents(path: Path, separator: str | None) -> Iterator[Chunk]:
    """The documents of a text file that are not blank."""
    with open(path, "rb") as file:
        yield from drop_blank(split_documents(text_blocks(file, path), separator))


def scan(path: Path, separator: str | None) -> Scan:
    """Read a text file once, in bounded memory."""
    num_separators, num_documents, num_chars = -1, 0, 0
    with open(path, "rb") as file:
        hashed = HashedFile(file)
        for chunk in split_documents(text_blocks(hashed, path), separator):
            num_separators += chunk.is_last
            for _ in drop_blank([chunk]):
                num_documents += chunk.is_first
                num_chars += len(chunk.text)
    return Scan(hashed.sha256.hexdigest(), num_documents, num_chars, num_separators)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, what is wrong with the disk is a ValueError that names the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): make room on its disk, or set data.cache_dir "
                         "to a folder on another one") from error


# ---- cached facts ----


def digest(*values: Any) -> str:
    """SHA-256 (hex) of JSON values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def cached_json(folder: Path, key: list[Any], find: Callable[[], Any]) -> Any:
    """The JSON value cached in the folder under the key; if there is none, the result of `find`, which is cached."""
    path = folder / f"{digest(*key)[:32]}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = find()
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found))
    return found


def cached_for_file(path: Path, what: str, cache: Path, find: Callable[[], Any]) -> Any:
    """The result of `find` for a file, cached, so that a large file is read once.

    A file is unchanged if its size and times are. If it changed a moment ago nothing is cached: it could change again
    within one tick of the file system's clock.
    """
    state = state_of(path)
    if time.time_ns() - max(state[1:3]) < MIN_AGE_NS:
        return find()
    return cached_json(cache / "scans", [what, str(path.resolve()), *state], find)


def state_of(path: Path) -> tuple[int, ...]:
    """Size, times and inode of a file: if they are the same, so is its content."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def checked_unchanged(chunks: Iterable[Chunk], path: Path, state: tuple[int, ...]) -> Iterator[Chunk]:
    """The chunks of a file. Raises ValueError at the end if the file has changed since `state`."""
    yield from chunks
    if state_of(path) != state:
        raise ValueError(f"{path} has changed while it was read: start again when it is complete")
