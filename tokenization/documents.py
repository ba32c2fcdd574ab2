"""The documents of a text file, to learn a vocabulary from."""

import mmap
from collections.abc import Iterator
from pathlib import Path


def documents_in(path: str | Path, separator: str | None = None) -> Iterator[str]:
    """The documents of a UTF-8 file: all of it, or the texts between separators, without blank ones.

    Memory holds one document at a time. Raises ValueError if the file is not UTF-8.
    """
    if Path(path).stat().st_size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark, start = separator.encode() if separator else None, 0
        while start <= len(content):
            end = content.find(mark, start) if mark else -1
            end = len(content) if end < 0 else end
            try:
                text = content[start:end].decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path} is not UTF-8 text (byte {start + error.start}): "
                                 "convert it first") from error
            if text.strip():
                yield text
            start = end + len(mark or " ")
