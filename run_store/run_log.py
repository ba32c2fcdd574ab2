"""The log and the samples of a run: log.csv and samples.jsonl."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from configuration.reading import open_file
from run_store.append_log import AppendLog
from run_store.atomic_files import PRIVATE, write_text
from run_store.facts import Sample, as_sample, in_folder
from run_store.listing import COLUMNS, DIVERGED, complete_lines
from run_store.long_tables import pieces_of, text_of, thinned, whole_lines
from run_store.unfinished import abandoned, remove

TIMED = ("seconds", "tokens_per_second")  # columns that no seed repeats


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


def read_samples(run: Path) -> list[Sample]:
    """The texts in a run's samples.jsonl. Raises ValueError if it is damaged."""
    return [as_sample(line) for line in complete_lines(run / "samples.jsonl")]


class RunLog:
    """What a run's folder tells of its training. If the disk is full, new lines wait in memory."""

    def __init__(self, path: Path):
        self.path, self.journal = path, AppendLog()

    def log(self) -> pd.DataFrame:
        """The complete lines of log.csv, one per row. Raises ValueError if it is missing or damaged."""
        return in_folder(self.path, read_log)

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to log.csv; missing values stay empty. The first line determines the columns.

        Those of COLUMNS come first, then what else it names, such as a part of the losses.
        """
        path, text = self.path / "log.csv", io.StringIO()
        header = self.journal.first_line(path)
        columns = header.split(",") if header else [*COLUMNS, *(name for name in line if name not in COLUMNS)]
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerow(line)
        self.journal.append(path, text.getvalue().encode())

    def samples(self) -> list[Sample]:
        """Texts written during training, oldest first: step, prompt, text."""
        return in_folder(self.path, read_samples) if (self.path / "samples.jsonl").exists() else []

    def append_samples(self, step: int, samples: Sequence[dict[str, str]]) -> None:
        """Add texts to samples.jsonl."""
        lines = [json.dumps({"step": step} | sample) + "\n" for sample in samples]
        self.journal.append(self.path / "samples.jsonl", "".join(lines).encode())

    def forget_after(self, step: int) -> None:
        """Delete what was written after `step`, and what an interrupted write has left, before a run goes on."""
        log, samples = self.path / "log.csv", self.path / "samples.jsonl"
        if log.exists() and (lines := list(complete_lines(log))):
            kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
            write_text(log, lines[0] + "".join(kept))
        else:
            log.unlink(missing_ok=True)
        if samples.exists():
            kept = [line for line in complete_lines(samples) if as_sample(line)["step"] <= step]
            write_text(samples, "".join(kept))
        for name in ("grades.json", "pairs.json", "loss.png", DIVERGED):
            (self.path / name).unlink(missing_ok=True)
        for unfinished in abandoned(self.path / "checkpoints"):
            remove(unfinished)
        for unfinished in self.path.glob(".*.tmp"):
            if PRIVATE.fullmatch(unfinished.name) and unfinished.is_file():
                unfinished.unlink()
