"""The documents of a text file, to learn a vocabulary from."""

import mmap
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 1 << 20  # of a document that comes in one string


def documents_in(path: str | Path, separator: str | None = None) -> Iterator[str]:
    """The documents of a UTF-8 file: all of it, or the texts between separators, without blank ones.

    A long one comes in several strings, cut before a newline, or else a space; memory holds one of them at a time.
    Raises ValueError if the file is not UTF-8.
    """
    if Path(path).stat().st_size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark, start = separator.encode() if separator else None, 0
        while start <= len(content):
            end = content.find(mark, start) if mark else -1
            end = len(content) if end < 0 else end
            texts = (text_at(content, first, last, path) for first, last in parts(content, start, end))
            yield from (text for text in texts if text.strip())
            start = end + len(mark or " ")


def text_at(content: mmap.mmap, start: int, end: int, path: str | Path) -> str:
    """A part of a file; the memory of what was read before it is released."""
    if hasattr(content, "madvise") and start >= MAX_BYTES:
        content.madvise(mmap.MADV_DONTNEED, 0, start // mmap.PAGESIZE * mmap.PAGESIZE)
    try:
        return content[start:end].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {start + error.start}): convert it first") from error


def parts(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The bounds of the strings of a document; without a space or newline it is cut between two characters."""
    while end - start > MAX_BYTES:
        last = start + MAX_BYTES
        found = (content.rfind(mark, start + MAX_BYTES // 2, last) for mark in (b"\n", b" "))
        between = (place for place in range(last, last - 4, -1) if content[place] & 0xC0 != 0x80)
        cut = next((place for place in (*found, *between) if place > 0), last)
        yield start, cut
        start = cut
    yield start, end
