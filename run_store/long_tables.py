"""Tables of any length: read as a stream, in pieces of which as many rows are kept as a picture can show."""

import io
from collections.abc import Iterable, Iterator, Sized
from typing import IO

import numpy as np
import pandas as pd

BLOCK_BYTES = 2**20
PIECE_ROWS = 2**14
MAX_ROWS = 2**15  # of a table that is thinned; a longer one keeps half of the values of a column, or a quarter, ...
MAX_COLUMNS = 2000
MAX_CELLS = 2**24  # of what is left; a log has fewer


class Beginning(io.RawIOBase):
    """The first bytes of a file, from its start on."""

    def __init__(self, file: IO[bytes], num_bytes: int):
        file.seek(0)
        self._file, self._left = file, num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[:len(data)] = data
        self._left -= len(data)
        return len(data)


def text_of(file: IO[bytes], num_bytes: int, **options: str) -> io.TextIOWrapper:
    """The first bytes of a file as UTF-8 text, read as it is needed."""
    return io.TextIOWrapper(io.BufferedReader(Beginning(file, num_bytes), BLOCK_BYTES),
                            encoding="utf-8-sig", **options)


def whole_lines(file: IO[bytes]) -> tuple[int, int]:
    """The ends of lines in a file, and the bytes up to the last of them."""
    file.seek(0)
    count = end = at = 0
    while block := file.read(BLOCK_BYTES):
        if found := block.count(b"\n"):
            count, end = count + found, at + block.rindex(b"\n") + 1
        at += len(block)
    return count, end


def pieces_of(text: io.TextIOBase, **options: object) -> Iterator[pd.DataFrame]:
    """The rows of a CSV, PIECE_ROWS at a time; the options are pandas's. Raises ValueError if it is not a table."""
    with pd.read_csv(text, chunksize=PIECE_ROWS, float_precision="round_trip", **options) as reader:
        yield from reader


def thinned(pieces: Iterable[pd.DataFrame], num_rows: int) -> pd.DataFrame:
    """One table of pieces with `num_rows` together; if these are more than MAX_ROWS, some are left out.

    Of the values of each column every second stays, or every fourth, ..., in each piece; all of a column that has few;
    the least, the largest and the last in any case. Raises ValueError if more than MAX_CELLS are left.
    """
    every, kept, names, num_kept = -(-num_rows // MAX_ROWS), [], set(), 0
    for piece in pieces:
        kept.append(_every(piece, every) if every > 1 else piece)
        names.update(piece.columns)
        num_kept += len(kept[-1])
        if num_kept * len(names) > MAX_CELLS:
            raise ValueError(f"it holds more than {num_kept:,} rows of {len(names):,} columns: keep fewer columns")
    return pd.concat(kept, ignore_index=True)


def require_few(columns: Sized) -> None:
    """Raise ValueError if there are more than MAX_COLUMNS."""
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"it has more than {MAX_COLUMNS:,} columns: keep those that are to be compared")


def _every(piece: pd.DataFrame, every: int) -> pd.DataFrame:
    """The rows of a piece that stay if one in `every` is to."""
    stays = np.zeros(len(piece), bool)
    for _, column in piece.items():
        (there,) = np.nonzero(column.notna().to_numpy())
        if len(there):
            values = column.to_numpy()[there]
            share = max(1, len(there) * every // len(piece))  # of a column with few values all stay
            stays[there[::1 << (share - 1).bit_length()]] = True  # powers of two: seeds then share their steps
            stays[there[[values.argmin(), values.argmax(), -1]]] = True
    return piece[stays]
