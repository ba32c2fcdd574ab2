"""Trackers write the log of a run: to its own files, TensorBoard and Weights & Biases, imported only if requested."""

import contextlib
import importlib
import io
import json
import os
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import to_dict
from configuration.command_line import warn
from runs import Run
from training.group import ALONE, Group


class Tracker:
    """Writes the log of a run. `after` is the last logged step, so the first one recorded is the next."""

    def __init__(self, run: Run, after: int):
        raise NotImplementedError

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        """Record a step's line of log.csv and its samples; both may be empty."""
        raise NotImplementedError

    def picture(self, step: int, path: Path) -> None:
        """Record the loss curve at the end, a PNG."""
        raise NotImplementedError

    def close(self) -> None:
        """End the recording."""


class Files(Tracker):
    """Writes log.csv and samples.jsonl, which every run has."""

    def __init__(self, run: Run, after: int):
        self._run = run

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        if line:
            self._run.append(line)
        if samples:
            self._run.append_samples(step, samples)

    def picture(self, step: int, path: Path) -> None:
        """Do nothing: the picture is a file of the run already."""

    def close(self) -> None:
        """Do nothing: no file is open."""


class TensorBoard(Tracker):
    """Writes event files in the run's tensorboard/, one per session: `tensorboard --logdir models` shows all runs.

    A session begins with a record that voids earlier ones of its first step and later steps.
    """

    def __init__(self, run: Run, after: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder, first = run.path / "tensorboard", after + 1
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir())) + 1
        self._path, self._journal = folder / f"events.out.tfevents.{number:06d}", run.journal
        self._add(first, file_version="brain.Event:2")
        self._add(first, session_log=SessionLog(status=SessionLog.START))
        self._text("config", first, json.dumps(to_dict(run.config), indent=2))

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        if line:
            self._summary(step, [{"tag": name, "simple_value": value} for name, value in measured(line).items()])
        if samples:
            self._text("samples", step, *(sample["text"] for sample in samples))

    def picture(self, step: int, path: Path) -> None:
        png = path.read_bytes()
        width, height = struct.unpack(">II", png[16:24])  # a PNG begins with its size
        self._summary(step, [{"tag": "loss", "image": {
            "width": width, "height": height, "colorspace": 4, "encoded_image_string": png}}])

    def _text(self, tag: str, step: int, *texts: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(step, summary=text_pb(f"{tag}/text_summary", "\n\n".join(f"```\n{text}\n```" for text in texts)))

    def _summary(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(step, summary=Summary(value=[Summary.Value(**value) for value in values]))

    def _add(self, step: int, **content) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(step=step, wall_time=time.time(), **content).SerializeToString())
        self._journal.append(self._path, record.getvalue())


class WeightsAndBiases(Tracker):
    """Writes a run of Weights & Biases, with files in the run's wandb/; its variables such as WANDB_MODE apply.

    wandb.txt has the id there and the steps that were sent, so that no step is sent twice if the run is resumed.
    Raises ValueError if wandb cannot start, e.g. without a login.
    """

    def __init__(self, run: Run, after: int):
        import wandb

        self._wandb, self._journal, self._steps = wandb, run.journal, run.path / "wandb.txt"
        known = self._steps.read_text(encoding="utf-8").split() if self._steps.exists() else []
        identity = known[0] if known else secrets.token_hex(8)
        self._sent = max(map(int, known[1:]), default=0)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "shapeshifter"), name=run.name, id=identity, resume="allow",
                dir=run.path, config=to_dict(run.config), settings=wandb.Settings(console="off", silent=True))
        except wandb.Error as error:
            raise ValueError(f"train.trackers=wandb cannot begin ({' '.join(str(error).split())}): use `wandb login` "
                             f"or set WANDB_MODE=offline, and go on with --resume {run.name}") from error
        if not known:
            self._journal.append(self._steps, f"{identity}\n".encode())

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        if step <= self._sent or not (line or samples):
            return
        self._sent = step
        self._journal.append(self._steps, f"{step}\n".encode())
        with self._warning_of_errors():
            table = self._wandb.Table(columns=["prompt", "text"], data=[[s["prompt"], s["text"]] for s in samples])
            self._run.log(measured(line) | ({"samples": table} if samples else {}), step=step, commit=True)

    def picture(self, step: int, path: Path) -> None:
        with self._warning_of_errors():
            self._run.summary["loss"] = self._wandb.Image(str(path))

    def close(self) -> None:
        with self._warning_of_errors():
            self._run.finish()

    @contextlib.contextmanager
    def _warning_of_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, self._wandb.Error) as error:  # the run has its own log
            warn(f"wandb misses a part of the log, which is whole in log.csv: {error}")


def measured(line: dict[str, Any]) -> dict[str, float]:
    """The columns of a line with a value, without the step."""
    return {name: value for name, value in line.items() if name != "step" and value is not None}


TRACKERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def require_packages(names: Sequence[str]) -> None:
    """Raise ValueError if the package of a tracker is missing; packages have the names of trackers."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise ValueError(f"train.trackers={name} needs a package that is missing: pip install {name}") from None


@contextlib.contextmanager
def opened(run: Run, after: int, group: Group = ALONE) -> Iterator[list[Tracker]]:
    """Open the run's own files and the trackers of its configuration; close them after the block.

    Only the first process of a group has any.
    """
    if not group.is_first:
        yield []
        return
    with contextlib.ExitStack() as stack:
        trackers: list[Tracker] = [Files(run, after)]
        for name in run.config.train.trackers:
            trackers.append(TRACKERS[name](run, after))
            stack.callback(trackers[-1].close)
        yield trackers
