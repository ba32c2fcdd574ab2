"""The log and the samples of a run: log.csv and samples.jsonl."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from run_store.append_log import AppendLog
from run_store.atomic_files import PRIVATE, write_text
from run_store.listing import COLUMNS, complete_lines
from run_store.unfinished import abandoned, remove

TIMED = ("seconds", "tokens_per_second")  # columns that no seed repeats


class RunLog:
    """What a run's folder tells of its training. If the disk is full, new lines wait in memory."""

    def __init__(self, path: Path):
        self.path, self.journal = path, AppendLog()

    def log(self) -> pd.DataFrame:
        """The complete lines of log.csv, one per row. Raises ValueError if it is missing or damaged."""
        try:
            text = "".join(complete_lines(self.path / "log.csv"))
            return pd.read_csv(io.StringIO(text), float_precision="round_trip")
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{self.path / 'log.csv'} cannot be read: {error}") from None

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

    def samples(self) -> list[dict[str, Any]]:
        """Texts written during training, oldest first: step, prompt, text."""
        path = self.path / "samples.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def append_samples(self, step: int, samples: Sequence[dict[str, str]]) -> None:
        """Add texts to samples.jsonl."""
        lines = [json.dumps({"step": step} | sample) + "\n" for sample in samples]
        self.journal.append(self.path / "samples.jsonl", "".join(lines).encode())

    def forget_after(self, step: int) -> None:
        """Delete what was written after `step`, and what an interrupted write has left, before a run goes on."""
        log, samples = self.path / "log.csv", self.path / "samples.jsonl"
        if log.exists() and (lines := complete_lines(log)):
            kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
            write_text(log, lines[0] + "".join(kept))
        else:
            log.unlink(missing_ok=True)
        if samples.exists():
            write_text(samples, "".join(line for line in complete_lines(samples) if json.loads(line)["step"] <= step))
        for name in ("grades.json", "loss.png"):
            (self.path / name).unlink(missing_ok=True)
        for unfinished in abandoned(self.path / "checkpoints"):
            remove(unfinished)
        for unfinished in self.path.glob(".*.tmp"):
            if PRIVATE.fullmatch(unfinished.name) and unfinished.is_file():
                unfinished.unlink()
