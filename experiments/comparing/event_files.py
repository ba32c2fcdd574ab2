"""TensorBoard's event files: which there are, and the scalars in them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from run_store.long_tables import MAX_CELLS

FRAME_BYTES = 16  # around each event in a file: its length, and two checksums
PARTS = {"train", "training", "val", "valid", "validation", "eval", "test"}  # folders that hold a part of one curve


class Scalar(NamedTuple):
    """A number in an event file; without a tag, the mark that a run went on from this step."""

    folder: str
    step: int
    tag: str | None
    value: float
    when: float


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
    rows = []
    for file in event_files(path) if path.is_dir() else [path]:
        folder = file.parent.relative_to(path).as_posix() + "/" if path.is_dir() and file.parent != path else ""
        for event in events(file):
            if event.session_log.status == event.session_log.START:
                rows.append(Scalar(folder, event.step, None, 0.0, event.wall_time))
            rows += [Scalar(folder, event.step, folder + tag, value, event.wall_time) for tag, value in scalars(event)]
    table = pd.DataFrame(reversed([*standing(rows)]), columns=Scalar._fields)
    if table.step.nunique() * table.tag.nunique() > MAX_CELLS:
        raise ValueError(f"it holds {table.tag.nunique():,} tags at {table.step.nunique():,} steps: keep fewer tags")
    when = (table.groupby("step").when.max() - table.when.min()).rename("seconds")
    table = table[table.tag != "step"].pivot_table(index="step", columns="tag", values="value", aggfunc="last")
    return (table if "seconds" in table else table.join(when)).reset_index()


def standing(rows: Iterable[Scalar]) -> Iterator[Scalar]:
    """The newest first, without those that a run which went on from an earlier step has written again."""
    end: dict[str, float] = defaultdict(lambda: inf)  # folder -> the step from which a later run has written on
    for row in reversed([*rows]):
        if row.tag is None:
            end[row.folder] = min(end[row.folder], row.step)
        elif row.step < end[row.folder]:
            yield row


def events(file: Path) -> Iterator[Any]:
    """The events of a file. Raises ValueError if it is damaged or ends within an event."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    count = size = 0
    for record in RawEventFileLoader(str(file)).Load():
        count, size = count + 1, size + len(record) + FRAME_BYTES
        yield Event.FromString(record)
    if size != file.stat().st_size:
        raise ValueError(f"{file} is half-written or damaged: only {count} events of it are whole")


def scalars(event: Any) -> Iterator[tuple[str, float]]:
    """The tags and numbers of an event of torch's SummaryWriter or TensorFlow."""
    from tensorboard.util.tensor_util import make_ndarray

    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
        elif value.HasField("tensor") and (array := make_ndarray(value.tensor)).ndim == 0 and array.dtype.kind in "fiu":
            yield value.tag, float(array)
