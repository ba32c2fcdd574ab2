"""The log and the samples of a run: log.csv and samples.jsonl."""

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_store.append_log import AppendLog
from run_store.atomic_files import PRIVATE, write_text
from run_store.facts import Sample, as_sample, in_folder
from run_store.listing import COLUMNS, DIVERGED, complete_lines
from run_store.unfinished import abandoned, remove

if TYPE_CHECKING:
    import pandas as pd

TIMED = ("seconds", "tokens_per_second")  # columns that no seed repeats


def read_samples(run: Path) -> list[Sample]:
    """The texts in a run's samples.jsonl. Raises ValueError if it is damaged."""
    return [as_sample(line) for line in complete_lines(run / "samples.jsonl")]


def read_points(run: Path, columns: Sequence[str]) -> list[tuple[float, ...]]:
    """See RunLog.points."""
    rows = [row for row in csv.DictReader(complete_lines(run / "log.csv")) if all(map(row.get, columns))]
    try:
        return [tuple(float(row[name]) for name in columns) for row in rows]
    except ValueError as error:
        raise ValueError(f"log.csv cannot be read: {error}") from None


class RunLog:
    """What a run's folder tells of its training. If the disk is full, new lines wait in memory."""

    def __init__(self, path: Path):
        self.path, self.journal = path, AppendLog()

    def log(self) -> "pd.DataFrame":
        """The complete lines of log.csv, one per row. Raises ValueError if it is missing or damaged."""
        from run_store.log_table import read_log  # pandas takes 0.4 s and 60 MB, and training needs none of it

        return in_folder(self.path, read_log)

    def points(self, *columns: str) -> list[tuple[float, ...]]:
        """The values of some columns, a tuple for each complete line of log.csv that has all of them.

        Raises ValueError if the file is missing, or a value is not a number.
        """
        return in_folder(self.path, partial(read_points, columns=columns))

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
