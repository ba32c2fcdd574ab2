"""The summary of a run, read from its files without loading a model."""

import contextlib
import csv
import json
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

from config import Config, from_dict
from configuration.migrations import migrated
from run_store.lock import is_being_trained

ROOT = Path(__file__).resolve().parent.parent
# the folders of saved runs and of the results of experiments; tests use others
MODELS = Path(os.environ.get("SHAPESHIFTER_MODELS", ROOT / "models"))
RESULTS = Path(os.environ.get("SHAPESHIFTER_RESULTS", ROOT / "experiments" / "results"))
COLUMNS = ("step", "tokens", "seconds", "flops", "train_loss", "val_loss", "bits_per_byte", "perplexity",
           "accuracy", "lr", "grad_norm", "tokens_per_second")  # of every log
MAX_NAMES = 10  # in one sentence


@dataclass(frozen=True)
class RunSummary:
    """One line of the list; None = not known."""

    name: str
    when: float  # last change, in seconds since 1970
    state: str  # finished, training, interrupted or broken
    parameters: int | None
    data: str | None
    step: int  # last one logged or saved
    steps: int | None  # train.steps
    tokens: int | None
    best: float | None  # lowest validation loss, bits per byte
    last: float | None
    num_bytes: int  # of its files
    problem: str | None = None  # why it is broken


def is_run(path: Path) -> bool:
    """Whether a folder is a run, perhaps a broken one."""
    return (path / "config.json").is_file() or (path / "environment.json").is_file()


def run_folders(models: Path, patterns: Sequence[str] = ()) -> list[Path]:
    """The runs in a folder, broken ones included, by name; if there are patterns, only those that match one."""
    folders = (path for path in models.glob("[!.]*") if is_run(path))
    return sorted(path for path in folders if not patterns or any(fnmatchcase(path.name, p) for p in patterns))


def saved_names(models: Path) -> list[str]:
    """The names of the runs in a folder that have a configuration."""
    return sorted(path.parent.name for path in models.glob("[!.]*/config.json"))


def find_run(where: str | Path, models: Path) -> Path:
    """The folder of a run, by its path or its name. Raises ValueError if there is none."""
    path = Path(where)
    path = path if (path / "config.json").is_file() else models / path
    if not (path / "config.json").is_file():
        there = list_names(saved_names(models), str(where))
        raise ValueError(f"{where} is not a run: expected {path / 'config.json'}; there are {there}")
    return path


def list_names(names: Sequence[str], wanted: str = "") -> str:
    """Names of runs, for a sentence; of many, those nearest to `wanted`."""
    if len(names) <= MAX_NAMES:
        return ", ".join(names) or "no runs yet"
    near = get_close_matches(wanted, names, MAX_NAMES, cutoff=0.5) or names[:MAX_NAMES]
    return f"{', '.join(near)} and {len(names) - len(near):,} more, see python runs.py list"


def summarize_run(path: Path) -> RunSummary:
    """Summarize a run; a broken one has a problem."""
    problems: list[str] = []
    checkpoints = step_folders(path)
    config = try_read(problems, read_config, path)
    data = try_read(problems, read_json, path / "data.json") or {}
    log = try_read(problems, read_log, path / "log.csv")
    if log == {} and (path / "loss.png").exists():
        problems.append("log.csv is empty" if (path / "log.csv").exists() else "log.csv is missing")
    log = log or {}
    parameters = try_read(problems, num_parameters, checkpoints[-1] / "model.safetensors") if checkpoints else None
    return RunSummary(
        name=path.name, when=last_changed(path), state="broken" if problems else state_of(path), parameters=parameters,
        data=data.get("name"), steps=config and config.train.steps, tokens=log.get("tokens"),
        step=max([log.get("step", 0), *map(step_of, checkpoints[-1:])]), best=log.get("best"), last=log.get("last"),
        num_bytes=num_bytes(path), problem="; ".join(problems) or None)


def try_read(problems: list[str], read: Callable[[Path], Any], path: Path) -> Any:
    """The result of `read`; None if it raises ValueError, whose sentence is added to the problems."""
    try:
        return read(path)
    except ValueError as error:
        problems.append(str(error))
        return None


def state_of(path: Path) -> str:
    if (path / "loss.png").exists():
        return "finished"
    return "training" if is_being_trained(path) else "interrupted"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError if it cannot be read, or is not an object."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no names with values")
    return tree


def read_config(path: Path) -> Config:
    """The configuration of a run. Raises ValueError if it cannot be read, or has an unknown flag."""
    try:
        return from_dict(migrated(read_json(path / "config.json")))
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("config.json") else f"config.json: {said}") from None


def read_log(path: Path) -> dict[str, Any]:
    """The last step and its tokens, the best and the last bits per byte; empty if nothing is logged yet."""
    try:
        lines = list(csv.reader(complete_lines(path))) if path.exists() else []
        if len(lines) < 2:
            return {}
        header, *rows = lines
        step, tokens, bits = (header.index(name) for name in ("step", "tokens", "bits_per_byte"))
        measured = [float(row[bits]) for row in rows if row[bits]]
        return {"step": int(rows[-1][step]), "tokens": int(rows[-1][tokens]),
                "best": min(measured, default=None), "last": measured[-1] if measured else None}
    except (OSError, ValueError, IndexError, csv.Error):
        raise ValueError("log.csv is damaged") from None


def complete_lines(path: Path) -> list[str]:
    """The lines of a file, with their ends, without an incomplete last line."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def num_parameters(weights: Path) -> int:
    """The parameters in a safetensors file, by its header; shared tensors are stored once."""
    try:
        with weights.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
            end = file.tell() + max(tensor["data_offsets"][1] for tensor in tensors)
        if (there := weights.stat().st_size) < end:
            raise ValueError(f"{there:,} bytes are there of {end:,}")
        return sum(prod(tensor["shape"]) for tensor in tensors)
    except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
        raise ValueError(f"{weights.parent.name}/{weights.name} cannot be read: {error}") from None


def step_folders(path: Path) -> list[Path]:
    """The folders of a run's checkpoints, oldest first."""
    return sorted((folder for folder in path.glob("checkpoints/step_*") if folder.name[5:].isdecimal()), key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def last_changed(path: Path) -> float:
    """The time of the last change of the log, or of the folder if there is no log; seconds since 1970."""
    log = path / "log.csv"
    return (log if log.exists() else path).stat().st_mtime


def num_bytes(path: Path) -> int:
    """The size of all files in a folder."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, by training
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
