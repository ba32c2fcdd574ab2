"""Logs of other programs: CSVs, the output of nanoGPT and the like, TensorBoard's event files."""

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

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
UNNAMED = {"history", "log", "log_data", "logs", "loss", "metrics", "output", "progress"}  # named by their folder
FRAME_BYTES = 16  # around each event in a file: its length, and two checksums
PARTS = {"train", "training", "val", "valid", "validation", "eval", "test"}  # folders that hold a part of one curve
NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"
PRINTED_STEP = re.compile(r"\b(?:step|iter(?:ation)?)[\s:=]*(\d+)(?:/\d+)?[\s:|,]+(.*)", re.IGNORECASE)
PRINTED_VALUE = re.compile(rf"([a-z_][\w/. ]*?)[\s:=]+({NUMBER})(?![\d.])", re.IGNORECASE)
BARE_LINE = re.compile(rf"(\d+) (\w+ {NUMBER})", re.IGNORECASE)  # "250 val 3.2811"
EXPORTED = re.compile(r"(.+) - (.+?)(__MIN|__MAX)?")  # a column of a chart that Weights & Biases exports


def goes_by(path: Path) -> Path:
    """The path whose name is the log's: without its suffix, or the folder if the file is in UNNAMED."""
    if is_event_file(path) or path.stem.lower() in UNNAMED:
        return path.parent
    return path.with_suffix("") if path.is_file() else path


def read_log(path: Path) -> dict[str, pd.DataFrame]:
    """The curves of a file or a folder by name; "" = the file's own.

    Raises ValueError if it is damaged or has no numbers, OSError if it cannot be read.
    """
    if path.is_dir() or is_event_file(path):
        return {"": tidy(read_events(path), path)}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a log: neither text nor an event file of TensorBoard") from None
    header = text.partition("\n")[0]
    columns = [name.strip(' "\r').lower() for name in header.split(separator(header))]
    if any(name in STEPS for name in columns):
        return {name: tidy(table, path) for name, table in exported_runs(read_csv(text, path)).items()}
    if rows := list(printed_rows(text)):
        return {"": tidy(pd.DataFrame(rows), path)}
    raise ValueError(f"{path} has no step column: expected one of {', '.join(STEPS)} in its first line, "
                     'or printed lines such as "iter 10: loss 2.3"')


def tidy(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The numbers by step, ascending, under our names; the last of repeated values counts."""
    lower = {name.strip().lower(): name for name in reversed(table.columns)} | {name: name for name in table.columns}
    step = next(lower[name] for name in STEPS if name in lower)
    numbers = table.rename(columns={step: "step"}).apply(to_numbers).dropna(subset="step")
    numbers = numbers.groupby("step").last().dropna(axis=0, how="all").dropna(axis=1, how="all").reset_index()
    if numbers.empty or len(numbers.columns) < 2:
        raise ValueError(f"{path} holds no numbers beside its steps")
    if (numbers.step % 1 == 0).all():
        numbers = numbers.astype({"step": "int64"})
    return numbers.rename(columns=our_names(list(numbers.columns)))


def to_numbers(column: pd.Series) -> pd.Series:
    """A column as floats; NaN for what is not a number or infinite. Reads "tensor(0.0100)", too."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype(str).str.replace(r"^tensor\(([^,)]*).*$", r"\1", regex=True)
    return pd.to_numeric(column, errors="coerce").astype(float).replace([math.inf, -math.inf], math.nan)


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


def read_csv(text: str, path: Path) -> pd.DataFrame:
    """A table without an incomplete last line. Raises ValueError if it is not a table."""
    lines = text.rstrip("\n").split("\n")
    mark = separator(lines[0])
    if not text.endswith("\n") and lines[-1].count(mark) < lines[0].count(mark):
        lines.pop()
    try:
        table = pd.read_csv(io.StringIO("\n".join(lines)), sep=mark, index_col=False, skipinitialspace=True,
                            float_precision="round_trip", low_memory=False)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is not a table: {' '.join(str(error).split())}") from None
    return table.drop(columns=[name for name in table.columns if name.startswith("Unnamed: ")])  # pandas's row numbers


def exported_runs(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs in a chart exported from Weights & Biases ("RUN - METRIC", and __MIN, __MAX), or the table itself."""
    step, *others = table.columns
    parts = [EXPORTED.fullmatch(name) for name in others]
    if not others or not all(parts):
        return {"": table}
    found: dict[str, dict[str, str]] = {}
    for column, part in zip(others, parts, strict=True):
        if not part[3] and part[2] != "_step":
            found.setdefault(part[1], {})[column] = part[2]
    curves = {run: table[[step, *names]].rename(columns=names) for run, names in found.items()
              if table[list(names)].notna().any(axis=None)}
    return curves or {"": table}


def printed_rows(text: str) -> Iterator[dict[str, str]]:
    """The values of lines such as "step 250: train loss 2.01, val loss 2.13"."""
    for line in text.splitlines():
        said = PRINTED_STEP.search(line) or BARE_LINE.fullmatch(line.strip())
        if said and (values := PRINTED_VALUE.findall(said[2])):
            yield {"step": said[1]} | dict(values)


# ---- TensorBoard ----


def is_event_file(path: Path) -> bool:
    return "tfevents" in path.name and path.is_file()


def event_files(folder: Path) -> list[Path]:
    """All event files below a folder, those of each folder in the order of writing."""
    return sorted((path for path in folder.rglob("*tfevents*") if path.is_file()),
                  key=lambda path: (path.parent, path.name))


def event_folders(folder: Path) -> list[Path]:
    """The folders, this one or below it, that each hold one curve."""
    holding = {path.parent for path in event_files(folder)}
    curves = {path.parent if path.name in PARTS and path != folder else path for path in holding}
    return sorted(path for path in curves if curves.isdisjoint(path.parents))


def read_events(path: Path) -> pd.DataFrame:
    """The scalars of an event file, or of all below a folder, and the seconds since the first event.

    Those of a subfolder are called FOLDER/TAG: torch's add_scalars writes each of its lines into one.
    """
    rows = []  # (folder, step, tag, value, when)
    for file in event_files(path) if path.is_dir() else [path]:
        folder = file.parent.relative_to(path).as_posix() + "/" if path.is_dir() and file.parent != path else ""
        for event in events(file):
            if event.session_log.status == event.session_log.START:  # a run that continued from this step
                rows = [row for row in rows if row[0] != folder or row[1] < event.step]
            rows += [(folder, event.step, folder + tag, value, event.wall_time) for tag, value in scalars(event)]
    table = pd.DataFrame(rows, columns=["folder", "step", "tag", "value", "when"])
    when = (table.groupby("step").when.max() - table.when.min()).rename("seconds")
    table = table[table.tag != "step"].pivot_table(index="step", columns="tag", values="value", aggfunc="last")
    return (table if "seconds" in table else table.join(when)).reset_index()


def events(file: Path) -> Iterator[Any]:
    """The events of a file. Raises ValueError if it is damaged or ends within an event."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    records = list(RawEventFileLoader(str(file)).Load())
    if sum(len(record) + FRAME_BYTES for record in records) != file.stat().st_size:
        raise ValueError(f"{file} is half-written or damaged: only {len(records)} events of it are whole")
    yield from map(Event.FromString, records)


def scalars(event: Any) -> Iterator[tuple[str, float]]:
    """The tags and numbers of an event of torch's SummaryWriter or TensorFlow."""
    from tensorboard.util.tensor_util import make_ndarray

    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
        elif value.HasField("tensor") and (array := make_ndarray(value.tensor)).ndim == 0 and array.dtype.kind in "fiu":
            yield value.tag, float(array)
