"""Finds the curves that a command line names: saved runs, and logs of other programs."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

import runs
from experiments.comparing.event_files import event_folders
from experiments.comparing.foreign_logs import goes_by, histories, one_line, read_log
from run_store.facts import in_folder, peak_bytes
from run_store.listing import is_run, run_folders
from run_store.log_table import read_log as read_run_log
from runs import Run


@dataclass(frozen=True, eq=False)
class CurveSource:
    """One curve."""

    name: str  # of the run or the file, with as much of its path as makes it unique
    table: pd.DataFrame  # its log by "step", ascending; our columns under our names
    run: Run | None  # None = a foreign log
    path: Path


def find(words: Sequence[str]) -> tuple[list[CurveSource], list[str]]:
    """The curves of runs, CSVs, printed logs and TensorBoard's event files, each once, in the given order.

    A word is a run's name or path, a file, a folder of these, or a pattern (`tiny-*`) over names or else over paths.
    The second result has a sentence on each damaged one, which is left out. Raises ValueError if nothing is found.
    """
    sources, problems = [], []
    paths: dict[Path, None] = {}
    for word in words:
        named = places(word)
        if not named:
            problems.append(f"{word} is not a run, a file, a folder or a pattern for them")
        paths |= dict.fromkeys(path.resolve() for path in named)
    for path in paths:
        try:
            sources += read(path)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
        except ValueError as error:
            problems.append(str(error))
    if not sources:
        there = runs.there_are(words[0] if words else "")
        raise ValueError(f"there is nothing to compare: {'; '.join(problems) or 'name a run'}; there are {there}")
    return with_own_names(sources), problems


def missing(words: Sequence[str]) -> list[str]:
    """The words that are no patterns and name nothing."""
    return [word for word in words if not set(word) & set("*?[") and not places(word)]


def places(word: str) -> list[Path]:
    """The paths that a word names: folders of runs, whole or damaged, and files and folders of other logs."""
    path, in_models = Path(word).expanduser(), runs.MODELS / word
    if is_run(path):
        return [path]
    if is_run(in_models):
        return [in_models]
    if path.exists():
        return inside(path) or [path]
    if in_models.exists():
        return [in_models]
    if named := run_folders(runs.MODELS, [word]):
        return named
    return [place for found in sorted(glob.glob(str(path), recursive=True)) for place in inside(Path(found))]


def inside(path: Path) -> list[Path]:
    """The curves in a folder; a file or a run's folder is one itself."""
    if path.is_file() or is_run(path):
        return [path]
    return run_folders(path) or event_folders(path) + sorted(path.glob("*.csv")) + histories(path)


def read(path: Path) -> list[CurveSource]:
    """The curves of a run or another log. Raises ValueError or OSError for a damaged one."""
    if is_run(path) or (path.is_dir() and path not in event_folders(path)):
        return [read_run(path)]
    return [CurveSource(name=name or goes_by(path).name, table=table, run=None, path=path)
            for name, table in read_log(path).items()]


def read_run(path: Path) -> CurveSource:
    """A saved run whose log, configuration and data.json can be read. Raises ValueError."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a run (it has no config.json), and holds no other log")
    run = Run(path)
    table = in_folder(path, partial(read_run_log, thin=True))
    _ = run.config, run.data, run.tokenizer(), in_folder(path, peak_bytes)  # fail here, not later
    if table.empty:
        raise ValueError(f"{path} has no line in its log yet")
    return CurveSource(name=run.name, table=table, run=run, path=path)


def with_own_names(sources: list[CurveSource]) -> list[CurveSource]:
    """Make equal names unique by as much of the paths as needed, or else by a number."""
    paths = [source.path if source.run else goes_by(source.path) for source in sources]
    paths = [path if path.name == source.name else path / source.name  # a run in a chart lies below the file
             for path, source in zip(paths, sources, strict=True)]
    names = [one_line(source.name) for source in sources]
    for length in range(2, max(len(path.parts) for path in paths) + 1):
        times = Counter(names)
        names = [name if times[name] == 1 else one_line("/".join(path.parts[-length:]))
                 for name, path in zip(names, paths, strict=True)]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [replace(source, name=name if count == 0 else f"{name} ({count + 1})")
            for source, name, count in zip(sources, names, before, strict=True)]
