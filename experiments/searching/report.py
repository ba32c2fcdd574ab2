"""What a search leaves behind: the best configurations, a table of the trials, pictures.

    experiments/results/<study>/
        best.json  best-2.json ...   for `python train.py --config FILE`, best first; of several objectives the front
        trials.md  trials.csv        every trial: its value, sizes, time, flags, why it was skipped or failed
        history.png  importances.png  slice.png  contour.png  memory.png  pareto.png
        plots.html                   Optuna's own plots, interactive, on one page
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from config import Config, from_dict, override
from configuration.storage import to_json
from experiments.searching import pictures
from experiments.searching.importance import NothingToDraw, by_importance
from experiments.searching.outcomes import best_trials, columns, flags, measured, oversized_share
from experiments.searching.pages import page
from experiments.searching.parameter_pictures import draw_contour, draw_slices
from experiments.searching.tables import describe, figure, trial_table, trials_page
from run_store.atomic_files import write_bytes, write_text
from training.report import shown

TOP = 5  # configurations written where there is one objective


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `write_report` found and wrote; as a text, what to say at the end of a search."""

    folder: Path
    summary: str  # how many trials came to what, and what they cost
    table: pd.DataFrame  # a row for each trial, as in trials.csv
    best: tuple[FrozenTrial, ...]  # best first
    configs: tuple[Path, ...]  # their files
    files: tuple[Path, ...]  # tables and pictures
    left_out: dict[str, str]  # picture -> why there is none
    oversized_share: float  # of the time that all trials cost

    def __str__(self) -> str:
        lines = [self.summary, *(f"no {name}: {why}" for name, why in self.left_out.items())]
        if self.best:
            changed = " ".join(f"{name}={figure(value)}" for name, value in flags(self.best[0]).items())
            values = ", ".join(map(figure, self.best[0].values))
            others = f"; {len(self.best) - 1} more on the front" if len(self.best[0].values) > 1 else ""
            lines += [f"best: trial {self.best[0].number}, {values}{others}: {changed}", *self._against_base(),
                      f"train it: python train.py --config {shown(self.configs[0])} --train.name NAME"]
        return "\n".join([*lines, f"tables and pictures: {shown(self.folder)}"])

    def _against_base(self) -> list[str]:
        base = next((trial for trial in self.best if trial.user_attrs.get("is_base")), None)
        if base is None or len(base.values) > 1:
            return []
        return [f"the base: trial {base.number}, " + ("not beaten" if base is self.best[0] else figure(base.value))]


def write_report(study: optuna.Study, folder: Path) -> Report:
    """Write a study's results into a folder, in place of those of last time.

    Raises ValueError where a trial's flags make no configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = measured(study)
    best = best_trials(results)
    table = trial_table(results)
    write_text(folder / "trials.csv", table.to_csv(index=False))
    write_text(folder / "trials.md", trials_page(results, best))
    configs = _write_configs(results, best if len(columns(results)) > 1 else best[:TOP], folder)
    drawn, left_out = _write_pictures(results, folder)
    return Report(
        folder=folder, summary=describe(results), table=table, best=tuple(best), configs=tuple(configs),
        files=(folder / "trials.md", folder / "trials.csv", *drawn), left_out=left_out,
        oversized_share=oversized_share(results))


def best_config(results: optuna.Study, trial: FrozenTrial) -> Config:
    """A trial's configuration, to be trained again: without its name and limit, with the seed of the base."""
    base = from_dict(results.user_attrs["base"])
    kept = {"train.name": None, "train.seed": base.train.seed, "train.memory_limit": None}
    return override(base, flags(trial) | kept)


def _write_configs(results: optuna.Study, trials: list[FrozenTrial], folder: Path) -> list[Path]:
    for old in (folder / "best.json", *folder.glob("best-*.json")):
        old.unlink(missing_ok=True)
    paths = [folder / ("best.json" if place == 1 else f"best-{place}.json") for place in range(1, len(trials) + 1)]
    for path, trial in zip(paths, trials, strict=True):
        write_text(path, to_json(best_config(results, trial)))
    return paths


def _write_pictures(results: optuna.Study, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The pictures that there are, and why the others are not."""
    drawn, left_out = [], {}
    for name, draw in _pictures(results):
        path = folder / name
        path.unlink(missing_ok=True)
        try:
            write_bytes(path, draw())
            drawn.append(path)
        except NothingToDraw as reason:
            left_out[name] = str(reason)
    return drawn, left_out


def _pictures(results: optuna.Study) -> Iterator[tuple[str, Callable[[], bytes]]]:
    by_objective = {"history": pictures.draw_history, "importances": pictures.draw_importances,
                    "slice": draw_slices, "contour": draw_contour}
    for place, column in enumerate(columns(results)):
        for name, draw in by_objective.items():
            suffix = f"-{column}" if place else ""
            yield f"{name}{suffix}.png", partial(_png, partial(draw, results, place))
    yield "memory.png", partial(_png, partial(pictures.draw_memory, results))
    if len(columns(results)) > 1:
        yield "pareto.png", partial(_png, partial(pictures.draw_pareto, results))
    yield "plots.html", lambda: page(results, by_importance(results)).encode()


def _png(draw: Callable[[], Figure]) -> bytes:
    picture = io.BytesIO()
    draw().savefig(picture, dpi=130)
    return picture.getvalue()
