"""The summary of a run, read from its files without loading a model."""

import contextlib
import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from config import Config, ModelConfig, build, from_dict
from configuration.migrations import migrated
from configuration.reading import Count, check_as, decoded, open_file, parse_json, read_json
from run_store.facts import read_data
from run_store.lock import is_being_trained

ROOT = Path(__file__).resolve().parent.parent
# the folders of saved runs and of the results of experiments; tests use others
MODELS = Path(os.environ.get("SHAPESHIFTER_MODELS", ROOT / "models"))
RESULTS = Path(os.environ.get("SHAPESHIFTER_RESULTS", ROOT / "experiments" / "results"))
COLUMNS = ("step", "tokens", "seconds", "flops", "train_loss", "val_loss", "bits_per_byte", "bits_per_byte_error",
           "perplexity", "accuracy", "lr", "grad_norm", "tokens_per_second")  # of every log
DIVERGED = "diverged.txt"  # why a run has diverged, in its folder
MAX_NAMES = 10  # in one sentence
MAX_LINE_BYTES = 2**24  # of a log or of samples
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as the format has it


class Tensor(TypedDict):
    """A tensor in the header of a safetensors file."""

    dtype: str
    shape: list[Count]
    data_offsets: list[Count]


TENSORS = TypeAdapter(dict[str, Tensor])


def shown(path: Path) -> Path:
    """A path relative to the project's folder, or the whole path if it lies elsewhere."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


@dataclass(frozen=True)
class RunSummary:
    """One line of the list; None = not known."""

    name: str
    when: float  # last change, in seconds since 1970
    state: str  # finished, training, interrupted, diverged, imported or broken
    parameters: int | None
    data: str | None
    step: int  # last one logged or saved
    steps: int | None  # train.steps
    tokens: int | None
    best: float | None  # lowest validation loss, bits per byte
    last: float | None
    num_bytes: int  # of its files
    problem: str | None = None  # why it is broken
    sign: str = ""  # what stands before bits per byte, see configuration/objectives.py


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
    data = try_read(problems, read_data, path) or {}
    log = try_read(problems, read_ends, path / "log.csv")
    if log == {} and (path / "loss.png").exists():
        problems.append("log.csv is empty" if (path / "log.csv").exists() else "log.csv is missing")
    log, imported = log or {}, "imported" in data
    parameters = try_read(problems, num_parameters, checkpoints[-1] / "model.safetensors") if checkpoints else None
    return RunSummary(
        name=path.name, when=last_changed(path), parameters=parameters, data=data.get("name"),
        state="broken" if problems else "imported" if imported else state_of(path),
        steps=None if imported or config is None else config.train.steps, tokens=log.get("tokens"),
        step=max([log.get("step", 0), *map(step_of, checkpoints[-1:])]), best=log.get("best"), last=log.get("last"),
        num_bytes=num_bytes(path), problem="; ".join(problems) or None,
        sign="" if config is None else config.facts.sign)


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
    if (path / DIVERGED).exists():
        return "diverged"
    return "training" if is_being_trained(path) else "interrupted"


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError if it cannot be read, or is not an object."""
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no names with values")
    return tree


def read_config(path: Path) -> Config:
    """The configuration of a run. Raises ValueError if it cannot be read, or has an unknown flag."""
    try:
        tree = migrated(read_object(path / "config.json"))
        if isinstance(model := tree.get("model"), dict):
            with contextlib.suppress(ValueError):  # it is said better of the whole
                tree |= {"model": checked_model(json.dumps(model))}
        return from_dict(tree)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("config.json") else f"config.json: {said}") from None


@lru_cache(1000)
def checked_model(text: str) -> ModelConfig:
    """The flags of a model in JSON. Many runs share them, and to check them takes longer than all else of a run."""
    return build(ModelConfig, json.loads(text))


def read_ends(path: Path) -> dict[str, Any]:
    """The last step and its tokens, the best and the last bits per byte; empty if nothing is logged yet."""
    if not path.exists():
        return {}
    try:
        rows = csv.reader(complete_lines(path))
        header, row, best, last = next(rows, []), None, None, None
        for row in rows:
            if value := row[header.index("bits_per_byte")]:
                last = finite(value)
                best = last if best is None else min(best, last)
        found = row and {name: int(row[header.index(name)]) for name in ("step", "tokens")}
    except (IndexError, csv.Error):
        raise ValueError("log.csv is damaged") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("log.csv") else "log.csv is damaged") from None
    if found and max(found.values()) >= 2**63:
        raise ValueError("log.csv is damaged")
    return found | {"best": best, "last": last} if found else {}


def finite(text: str) -> float:
    """The number in a cell. Raises ValueError if it is none, or not finite."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not finite")
    return value


def complete_lines(path: Path) -> Iterator[str]:
    """The lines of a file, with their ends, without an incomplete last line. Raises ValueError if it cannot be read."""
    with open_file(path) as file:
        while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            yield decoded(line, path.name)
    if len(line) == MAX_LINE_BYTES:
        raise ValueError(f"{path.name} cannot be read: a line is longer than {MAX_LINE_BYTES:,} bytes")


def num_parameters(weights: Path) -> int:
    """The parameters in a safetensors file, by its header; shared tensors are stored once."""
    return sum(prod(shape) for shape in read_shapes(weights).values())


def read_shapes(weights: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file, by its header. Raises ValueError if it is damaged."""
    return {name: tensor["shape"] for name, tensor in read_tensors(weights).items()}


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """What the header of a safetensors file says of each tensor. Raises ValueError if it is damaged."""
    name = f"{weights.parent.name}/{weights.name}"
    with open_file(weights) as file:
        size, there = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if size > min(there, MAX_HEADER_BYTES):
            raise ValueError(f"{name} cannot be read: it is cut short")
        tensors = parse_json(file.read(size), name)
    if isinstance(tensors, dict):
        tensors.pop("__metadata__", None)
    tensors = check_as(TENSORS, tensors, name)
    end = 8 + size + max((offset for tensor in tensors.values() for offset in tensor["data_offsets"]), default=0)
    if there < end:
        raise ValueError(f"{name} cannot be read: {there:,} bytes are there of {end:,}")
    return tensors


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
