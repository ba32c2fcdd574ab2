"""The curves that words on a command line name: saved runs, and the logs of others."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import runs
from experiments.comparing.foreign_logs import event_folders, goes_by, read_log
from run_store.listing import is_run, run_folders
from runs import Run


@dataclass(frozen=True, eq=False)
class CurveSource:
    """One curve."""

    name: str  # the run's name or the file's, and as much of its path as tells it from the others
    table: pd.DataFrame  # its log by "step", ascending; runs.COLUMNS under those names, the others under their own
    run: Run | None  # None = somebody else's log
    path: Path


def find(words: Sequence[str]) -> tuple[list[CurveSource], list[str]]:
    """The curves of runs, CSVs, printed logs and TensorBoard's event files, each once, in the order they are named.

    A word is a run's name or path, a file, a folder of any of these, or a pattern (`tiny-*`) over names or else over
    paths. The second result is a sentence on each that is broken or half-written, and was left out.
    Raises ValueError where nothing is found at all.
    """
    sources, problems = [], []
    paths: dict[Path, None] = {}
    for word in words:
        named = places(word)
        if not named:
            problems.append(f"{word} is no run, file or folder, and no pattern for one")
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


def places(word: str) -> list[Path]:
    """Where what a word names lies: folders of runs, whole or not, and the files and folders of other logs."""
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
    """The curves that a folder holds; a run's folder or a file is one itself."""
    if path.is_file() or is_run(path):
        return [path]
    return run_folders(path) or event_folders(path) + sorted(path.glob("*.csv"))


def read(path: Path) -> list[CurveSource]:
    """A run's curve, or those of another log. Raises ValueError or OSError where it is broken or half-written."""
    if is_run(path) or (path.is_dir() and path not in event_folders(path)):
        return [read_run(path)]
    return [CurveSource(name=name or goes_by(path).name, table=table, run=None, path=path)
            for name, table in read_log(path).items()]


def read_run(path: Path) -> CurveSource:
    """A saved run, which others may go on to ask for all that is in its folder."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is no run (it has no config.json), and holds no log of others")
    run = Run(path)
    table, _, _ = run.log(), run.config, run.data  # whoever compares reads all three: what is broken is told here
    if table.empty:
        raise ValueError(f"{path} has no line in its log yet")
    if "step" not in table:
        raise ValueError(f"{path / 'log.csv'} cannot be read: it has no column step")
    return CurveSource(name=run.name, table=table, run=run, path=path)


def with_own_names(sources: list[CurveSource]) -> list[CurveSource]:
    """Where names are the same: as much of the paths as it takes to tell them apart, or else a number."""
    paths = [path_of_name(source) for source in sources]
    names = [source.name for source in sources]
    for length in range(2, max(len(path.parts) for path in paths) + 1):
        times = Counter(names)
        names = [name if times[name] == 1 else "/".join(path.parts[-length:])
                 for name, path in zip(names, paths, strict=True)]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [replace(source, name=name if count == 0 else f"{name} ({count + 1})")
            for source, name, count in zip(sources, names, before, strict=True)]


def path_of_name(source: CurveSource) -> Path:
    """A path that ends in the source's name; each run of a chart has one below the file's."""
    path = source.path if source.run else goes_by(source.path)
    return path if path.name == source.name else path / source.name
