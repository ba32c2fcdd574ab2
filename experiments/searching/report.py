"""The results of a search: the best configurations, tables of the trials, pictures.

    experiments/results/<study>/
        best.json  best-2.json ...   for `python train.py --config FILE`, best first; for several objectives the front
        trials.md  trials.csv        every trial: its value, sizes, time, flags, why it was skipped or failed
        history.png  importances.png  slice.png  contour.png  pareto.png    Optuna's plots
        memory.png                   the loss against memory, with the limit and what was skipped
        plots.html                   Optuna's plots, interactive, on one page
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from config import Config, from_dict, override
from configuration.storage import to_json
from experiments.common.reports import csv_text, write_picture
from experiments.searching.losses import signs_before
from experiments.searching.outcomes import best_trials, columns, flags, measured
from experiments.searching.plots import KINDS, NothingToDraw, draw, draw_memory, page
from experiments.searching.tables import describe, figure, oversized_share, trial_table, trials_page
from experiments.searching.trainer import UNCOUNTED
from run_store.atomic_files import write_text
from run_store.listing import shown

TOP = 5  # configurations that are written if there is one objective


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `write_report` found and wrote; as a string, the last words of a search."""

    folder: Path
    summary: str  # how many trials had which outcome, and what they cost
    table: pd.DataFrame  # a row for each trial, as in trials.csv
    best: tuple[FrozenTrial, ...]  # best first
    configs: tuple[Path, ...]  # their files
    files: tuple[Path, ...]  # tables and pictures
    left_out: dict[str, str]  # picture -> why there is none
    signs: dict[int, list[str]]  # what stands before the values of each trial
    oversized_share: float  # share of the time that all trials took

    def __str__(self) -> str:
        lines = [self.summary, *(f"no {name}: {why}" for name, why in self.left_out.items())]
        if self.best:
            changed = " ".join(f"{name}={figure(value)}" for name, value in flags(self.best[0]).items())
            values = self._values(self.best[0])
            others = f"; {len(self.best) - 1} more on the front" if len(self.best[0].values) > 1 else ""
            lines += [f"best: trial {self.best[0].number}, {values}{others}: {changed}", *self._against_base(),
                      f"train it: python train.py --config {shown(self.configs[0])} --train.name NAME"]
        return "\n".join([*lines, f"tables and pictures: {shown(self.folder)}"])

    def _against_base(self) -> list[str]:
        base = next((trial for trial in self.best if trial.user_attrs.get("is_base")), None)
        if base is None or len(base.values) > 1:
            return []
        return [f"the base: trial {base.number}, " + ("not beaten" if base is self.best[0] else self._values(base))]

    def _values(self, trial: FrozenTrial) -> str:
        signs = self.signs[trial.number]
        return ", ".join(sign + figure(value) for sign, value in zip(signs, trial.values, strict=True))


def write_report(study: optuna.Study, folder: Path) -> Report:
    """Write a study's results into a folder, over those of last time.

    Raises ValueError if a trial's flags do not make a configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = measured(study)
    best = best_trials(results)
    table = trial_table(results)
    summary = describe(results, table)
    write_text(folder / "trials.csv", csv_text(table, index=False))
    write_text(folder / "trials.md", trials_page(results, best, summary))
    configs = _write_configs(results, best if len(columns(results)) > 1 else best[:TOP], folder)
    drawn, left_out = _write_pictures(results, folder)
    return Report(
        folder=folder, summary=summary, table=table, best=tuple(best), configs=tuple(configs),
        files=(folder / "trials.md", folder / "trials.csv", *drawn), left_out=left_out, signs=signs_before(results),
        oversized_share=oversized_share(table))


def best_config(results: optuna.Study, trial: FrozenTrial) -> Config:
    """A trial's configuration for another training: without its name and limit, with the seed of the base."""
    base = from_dict(results.user_attrs["base"])
    kept = {"train.name": None, "train.seed": base.train.seed, "train.memory_limit": None}
    changed = flags(trial)
    uncounted = UNCOUNTED if "train.steps" in changed else {}
    return override(base, changed | uncounted | kept)


def _write_configs(results: optuna.Study, trials: list[FrozenTrial], folder: Path) -> list[Path]:
    numbered = (path for path in folder.glob("best-*.json") if path.stem.removeprefix("best-").isdecimal())
    for old in (folder / "best.json", *numbered):
        old.unlink(missing_ok=True)
    paths = [folder / ("best.json" if place == 1 else f"best-{place}.json") for place in range(1, len(trials) + 1)]
    for path, trial in zip(paths, trials, strict=True):
        write_text(path, to_json(best_config(results, trial)))
    return paths


def _write_pictures(results: optuna.Study, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write the pictures and the page; give their paths, and why the others are missing."""
    drawn, left_out = [], {}
    for name, make in _pictures(results).items():
        path = folder / name
        path.unlink(missing_ok=True)
        try:
            made = make()
        except NothingToDraw as reason:
            left_out[name] = str(reason)
            continue
        try:
            write_text(path, made) if isinstance(made, str) else write_picture(path, made, bbox_inches="tight")
        except ValueError as error:  # that of matplotlib, over what Optuna has drawn
            left_out[name] = f"it cannot be drawn: {str(error).strip().splitlines()[-1]}"
            continue
        drawn.append(path)
    return drawn, left_out


def _pictures(results: optuna.Study) -> dict[str, Callable[[], Figure | str]]:
    """File -> what makes it."""
    names = columns(results)
    pictures = {f"{kind}-{column}.png" if place else f"{kind}.png": partial(draw, results, kind, place)
                for place, column in enumerate(names) for kind in KINDS}
    pictures["memory.png"] = partial(draw_memory, results)
    if len(names) > 1:
        pictures["pareto.png"] = partial(draw, results, "pareto")
    return pictures | {"plots.html": partial(page, results)}
