"""The table in a run's log.csv, as pandas reads it."""

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from configuration.reading import open_file
from run_store.long_tables import pieces_of, text_of, thinned, whole_lines


def read_log(run: Path, *, thin: bool = False) -> pd.DataFrame:
    """The table in a run's log.csv; `thin` = no more rows of a long one than a comparison needs, see long_tables.py.

    Raises ValueError if it is missing or damaged.
    """
    with open_file(run / "log.csv") as file:
        num_lines, end = whole_lines(file)
        try:
            table = thinned(map(checked_piece, pieces_of(text_of(file, end))), num_lines if thin else 0)
        except (ValueError, OverflowError) as error:  # pandas's errors are ValueErrors
            raise ValueError(f"log.csv cannot be read: {error}") from None
    if "step" not in table:
        raise ValueError("log.csv cannot be read: it has no column step")
    return table


def checked_piece(piece: pd.DataFrame) -> pd.DataFrame:
    """Some rows of a log. Raises ValueError if a cell is not a finite number."""
    for name, values in piece.items() if len(piece) else ():
        if not is_numeric_dtype(values) or np.isinf(values.to_numpy(float)).any():
            raise ValueError(f"the column {name} holds what is not a finite number")
    return piece
