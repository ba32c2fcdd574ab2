"""Logs of other programs: CSVs, the output of nanoGPT and the like, Hugging Face's, TensorBoard's.

What is read is linear in a log's size: it may be a stranger's.
"""

import math
import os
import re
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pandas as pd
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from configuration.command_line import printable
from configuration.reading import read_as
from experiments.comparing.event_files import is_event_file, read_events
from experiments.comparing.printed_lines import MAX_LINE, printed_pieces
from run_store.long_tables import pieces_of, require_few, text_of, thinned, whole_lines
from runs import COLUMNS

STEPS = ("step", "steps", "global_step", "train/global_step", "trainer/global_step", "iter", "iters", "iteration",
         "iterations", "it", "_step")  # _step counts calls of wandb.log, so it comes last
SAME = {"training": "train", "validation": "val", "valid": "val", "eval": "val", "evaluation": "val",
        "dev": "val", "acc": "accuracy", "ppl": "perplexity", "bpb": "bits_per_byte", "gradient": "grad",
        "tok": "tokens", "sec": "second", "s": "second"}
# other names of our columns: words in any order, normalised by SAME; the first match counts
CALLED = {
    "tokens": ("tokens seen", "total tokens", "num tokens", "num input tokens seen", "train tokens", "consumed tokens"),
    "seconds": ("runtime", "elapsed seconds", "elapsed", "relative time process", "time elapsed"),
    "flops": ("total flops", "total flos"),
    "train_loss": ("train loss", "train loss step", "loss", "train loss epoch", "train"),
    "val_loss": ("val loss", "val loss epoch", "val"),
    "bits_per_byte": ("val bits_per_byte", "bits_per_byte", "val bits per byte"),
    "perplexity": ("val perplexity", "perplexity"),
    "accuracy": ("val accuracy", "accuracy"),
    "lr": ("learning rate", "train learning rate", "train lr", "lr"),
    "grad_norm": ("grad norm", "train grad norm", "norm"),
    "tokens_per_second": ("tokens per second", "tokens second", "throughput tokens per second", "tps"),
}
UNNAMED = {"history", "log", "log_data", "logs", "loss", "metrics", "output", "progress",
           "trainer_state"}  # named by their folder
HISTORY = "trainer_state.json"


class TrainerState(TypedDict):
    """What is read of a trainer_state.json, which Hugging Face's Trainer writes into each checkpoint."""

    log_history: list[dict[str, Any]]


TRAINER_STATE = TypeAdapter(TrainerState)

def goes_by(path: Path) -> Path:
    """The path whose name is the log's: without its suffix, or the folder if the file is in UNNAMED."""
    if is_event_file(path) or path.stem.lower() in UNNAMED:
        return path.parent
    return path.with_suffix("") if path.is_file() else path


def read_log(path: Path) -> dict[str, pd.DataFrame]:
    """The curves of a file or a folder by name; "" = the file's own.

    Raises ValueError if it is damaged or has no numbers, OSError if it cannot be read.
    """
    try:
        return {name: tidy(table, path) for name, table in read_tables(path).items()}
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a log: neither text nor an event file of TensorBoard") from None
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def read_tables(path: Path) -> dict[str, pd.DataFrame]:
    """The numbers of each curve, thinned."""
    if path.is_dir() or is_event_file(path):
        table = all_numbers(read_events(path))
        return {"": thinned([table], len(table))}
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.suffix == ".json":
        return {"": read_history(path)}
    with path.open("rb") as file:
        return read_text_log(file, path)


def tidy(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The numbers by step, ascending, under our names; the last of repeated values counts."""
    lower = {name.strip().lower(): name for name in reversed(table.columns)} | {name: name for name in table.columns}
    step = next(lower[name] for name in STEPS if name in lower)
    numbers = table.rename(columns={step: "step"}).dropna(subset="step")
    numbers = numbers.groupby("step").last().dropna(axis=0, how="all").dropna(axis=1, how="all").reset_index()
    if numbers.empty or len(numbers.columns) < 2:
        raise ValueError(f"{path} holds no numbers beside its steps")
    if (numbers.step % 1 == 0).all() and numbers.step.abs().max() < 2**53:
        numbers = numbers.astype({"step": "int64"})
    numbers = numbers.rename(columns=our_names(list(numbers.columns)))
    numbers.columns = [one_line(name) for name in numbers.columns]
    return numbers.loc[:, ~numbers.columns.duplicated()]


def to_numbers(column: pd.Series) -> pd.Series:
    """A column as floats; NaN for what is not a number or infinite. Reads "tensor(0.0100)", too."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype(str).str.replace(r"^tensor\(([^,)]*).*$", r"\1", regex=True)
    return pd.to_numeric(column, errors="coerce").astype(float).replace([math.inf, -math.inf], math.nan)


def all_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """A table with `to_numbers` of each column. Raises ValueError if there are more than MAX_COLUMNS."""
    require_few(table.columns)
    return table.apply(to_numbers)


def one_line(name: str) -> str:
    """A name of others as it is shown."""
    return printable(" ".join(name.split()))


def our_names(columns: list[str]) -> dict[str, str]:
    """The columns that are ours under another name: {"Loss/train": "train_loss"}."""
    spelled = {column: frozenset(SAME.get(word, word) for word in re.findall("[a-z0-9]+", column.lower()))
               for column in columns if column not in COLUMNS}
    ours = {}
    for name in set(CALLED) - set(columns):
        for words in CALLED[name]:
            if meant := [column for column, spelling in spelled.items() if spelling == frozenset(words.split())]:
                ours[meant[0]] = name
                break
    return ours


# ---- text ----


def separator(header: str) -> str:
    return max(",;\t", key=header.count)


def read_text_log(file: IO[bytes], path: Path) -> dict[str, pd.DataFrame]:
    """The numbers in a table or in printed lines, by name of the run. Raises ValueError if it is neither."""
    num_lines, end = whole_lines(file)
    size = os.fstat(file.fileno()).st_size
    header = text_of(file, size).readline(MAX_LINE)
    columns = [name.strip(' "\r\n').lower() for name in header.split(separator(header))]
    if any(name in STEPS for name in columns):
        require_few(columns)  # pandas takes quadratic time over equal names
        return exported_runs(read_csv(file, size if is_whole(file, end, header) else end, num_lines, header, path))
    pieces = printed_pieces(text_of(file, size))
    if (first := next(pieces, None)) is not None:
        return {"": thinned(chain([first], pieces), num_lines)}
    raise ValueError(f"{path} has no step column: expected one of {', '.join(STEPS)} in its first line, "
                     'or printed lines such as "iter 10: loss 2.3"')


def is_whole(file: IO[bytes], end: int, header: str) -> bool:
    """Whether what stands after the last end of a line has all cells."""
    file.seek(end)
    mark = separator(header)
    return file.read().count(mark.encode()) >= header.count(mark)


def read_csv(file: IO[bytes], end: int, num_rows: int, header: str, path: Path) -> pd.DataFrame:
    """The numbers in the table up to a byte. Raises ValueError if it is not a table."""
    try:
        pieces = pieces_of(text_of(file, end), sep=separator(header), index_col=False, skipinitialspace=True,
                           low_memory=False)
        table = thinned(map(all_numbers, pieces), num_rows)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is not a table: {' '.join(str(error).split())}") from None
    return table.drop(columns=[name for name in table.columns if name.startswith("Unnamed: ")])  # pandas's row numbers


def exported_runs(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs in a chart exported from Weights & Biases ("RUN - METRIC", and __MIN, __MAX), or the table itself."""
    step, *others = table.columns
    found: dict[str, dict[str, str]] = {}
    for column in others:
        run, _, metric = column.rpartition(" - ")
        if not run or not metric:
            return {"": table}
        if not metric.endswith(("__MIN", "__MAX")) and metric != "_step":
            found.setdefault(run, {})[column] = metric
    curves = {run: table[[step, *names]].rename(columns=names) for run, names in found.items()
              if table[list(names)].notna().any(axis=None)}
    return curves or {"": table}


def histories(folder: Path) -> list[Path]:
    """The trainer_state.json of a folder, or else that of its newest checkpoint, which has the lines of the others."""
    own = folder / HISTORY
    saved = [path for path in folder.glob(f"checkpoint-*/{HISTORY}") if path.parent.name[11:].isdecimal()]
    return [own] if own.is_file() else sorted(saved, key=lambda path: int(path.parent.name[11:]))[-1:]


def read_history(path: Path) -> pd.DataFrame:
    """The log in a trainer_state.json of Hugging Face, without its last line, the means over the whole training.

    Raises ValueError if it is none.
    """
    rows = [row for row in read_as(TRAINER_STATE, path)["log_history"] if "train_runtime" not in row]
    names = dict.fromkeys(name for row in rows for name in row)
    if "step" not in names:
        raise ValueError("it has no step in its log_history")
    return thinned([all_numbers(pd.DataFrame(rows, columns=[*names], dtype=object))], len(rows))
