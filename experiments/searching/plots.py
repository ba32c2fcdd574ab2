"""Optuna's plots of a `measured` study: pictures, and all of them interactive on one page."""

import html
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import isqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from experiments.searching.outcomes import columns, done_trials, signs

KINDS = ("history", "importances", "slice", "contour")  # pictures of each objective
LEAST_TRIALS = 5  # done, for importances to mean anything
MAX_CONTOURS = 4  # parameters in the matrix of contours on the page
BUTTONS = {"showSendToCloud": False, "displaylogo": False}  # nothing leaves this machine
HEIGHT, ROW = 420, 180  # pixels: of a plot, of a row of the matrix


class NothingToDraw(Exception):
    """A picture that the trials do not give; the sentence says why."""


def done_or_nothing(results: optuna.Study) -> list[FrozenTrial]:
    """The trials that are done. Raises NothingToDraw if there are none."""
    if trials := done_trials(results):
        return trials
    raise NothingToDraw("no trial is done")


# ---- what the trials depend on ----


def varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """The parameters of which the trials have more than one value."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1]


def importances(results: optuna.Study, place: int = 0) -> dict[str, float]:
    """How much each varied parameter decides whether a trial is among the best, most first; they sum to 1.

    PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255. Raises NothingToDraw if too few trials are done.
    """
    _require_enough(results, "importances", varied(done_or_nothing(results)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that less is better, which the target sees to
        return get_param_importances(results, **_for_importances(results, place))


def _for_importances(results: optuna.Study, place: int) -> dict[str, Any]:
    """Arguments: compare the best tenth with all trials, or the best five if that is more."""
    trials, sign = done_trials(results), signs(results)[place]
    best = min(0.5, max(0.1, LEAST_TRIALS / len(trials)))
    return {"evaluator": PedAnovaImportanceEvaluator(target_quantile=best), "params": varied(trials),
            "target": lambda trial: sign * trial.values[place]}


def by_importance(results: optuna.Study, place: int = 0) -> list[str]:
    """The parameters that vary among the trials that are done, the most important first if that can be told."""
    trials = done_trials(results)
    return list(importances(results, place)) if len(trials) >= LEAST_TRIALS and varied(trials) else varied(trials)


# ---- plots ----


def draw(results: optuna.Study, kind: str, place: int = 0) -> Figure:
    """A picture: one of KINDS for an objective, or pareto. Raises NothingToDraw."""
    done_or_nothing(results)
    with warnings.catch_warnings(), plt.rc_context():  # Optuna sets a style for all figures
        warnings.simplefilter("ignore")
        figure = np.ravel(_plot(visualization.matplotlib, results, kind, place, most=2))[0].figure
        plt.close(figure)  # so that a notebook shows it once
    return figure


def page(results: optuna.Study) -> str:
    """All plots, interactive, as one HTML page that needs no network. Raises NothingToDraw."""
    done_or_nothing(results)
    if not visualization.is_available():
        raise NothingToDraw("plotly is not installed: pip install plotly")
    parts, script = [], True  # plotly itself, 5 MB, once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for title, drawn in _all_plots(results):
            drawn.update_layout(title=None, template="plotly_white", height=_height(drawn), margin={"t": 30})
            plot = drawn.to_html(full_html=False, include_plotlyjs=script, config=BUTTONS)
            parts.append(f"<section><h2>{html.escape(title)}</h2>\n{plot}</section>\n")
            script = False
    name = html.escape(results.study_name)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
            "<style>body{font-family:sans-serif;max-width:1400px;margin:1em auto} section{overflow-x:auto}</style>\n"
            f"</head><body><h1>{name}</h1>\n{''.join(parts)}</body></html>\n")


def _all_plots(results: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Title and plot, for each that the trials give."""
    names = columns(results)
    wanted = [("Pareto front", "pareto", 0)] if len(names) > 1 else []
    for place, column in enumerate(names):
        wanted += [(f"{column}, trial by trial", "history", place), (f"{column} by parameter", "slice", place),
                   (f"What {column} depends on", "importances", place),
                   (f"{column} by pairs of parameters", "contour", place),
                   (f"{column}, all parameters at once", "parallel", place)]
    if len(names) == 1 and any(trial.intermediate_values for trial in results.get_trials(deepcopy=False)):
        wanted.append(("The trials as they went", "intermediate", 0))
    for title, kind, place in wanted:
        with suppress(NothingToDraw):
            yield title, _plot(visualization, results, kind, place, most=MAX_CONTOURS)


def _height(plot: Any) -> int:
    """Pixels: more for a matrix of contours."""
    rows = sum(name.startswith("yaxis") for name in plot.to_dict()["layout"])
    return HEIGHT + ROW * max(0, isqrt(rows) - 2)


def _plot(backend: Any, results: optuna.Study, kind: str, place: int, most: int) -> Any:
    """What a backend of Optuna draws, with at most so many parameters in a contour. Raises NothingToDraw."""
    names, column = by_importance(results, place), columns(results)[place]
    _require_enough(results, kind, names)
    several = len(results.directions) > 1
    one = {"target": (lambda trial: trial.values[place]) if several else None, "target_name": column}
    match kind:
        case "history":
            return backend.plot_optimization_history(results, **one)
        case "importances":
            return backend.plot_param_importances(results, target_name=column, **_for_importances(results, place))
        case "slice":
            return backend.plot_slice(results, names, **one)
        case "contour":
            return backend.plot_contour(results, names[:most], **one)
        case "parallel":
            return backend.plot_parallel_coordinate(results, names, **one)
        case "intermediate":
            return backend.plot_intermediate_values(results)
        case "pareto":
            return backend.plot_pareto_front(results, target_names=columns(results))


def _require_enough(results: optuna.Study, kind: str, names: Sequence[str]) -> None:
    """Raise NothingToDraw if there are too few trials, parameters or objectives for a plot."""
    done, objectives = len(done_trials(results)), len(results.directions)
    if kind == "importances" and done < LEAST_TRIALS:
        raise NothingToDraw(f"importances need {LEAST_TRIALS} trials that are done, and there are {done}")
    if kind in ("slice", "importances") and not names:
        raise NothingToDraw("no parameter varies among the trials that are done")
    if kind in ("contour", "parallel") and len(names) < 2:
        raise NothingToDraw(f"a {kind} plot needs two parameters that vary")
    if kind == "pareto" and objectives not in (2, 3):
        raise NothingToDraw(f"Optuna draws the front of 2 or 3 objectives, not of {objectives}")
