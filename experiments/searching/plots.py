"""Pictures of a `measured` study: Optuna's plots, all of them interactive on one page, and values against memory."""

import html
import warnings
from collections.abc import Iterator
from contextlib import suppress
from math import isqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedFormatter, FuncFormatter
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from experiments.common.axes import label, logarithmic
from experiments.comparing.lines import COLUMNS
from experiments.searching.outcomes import columns, done_trials, ended, signs

KINDS = ("history", "importances", "slice", "contour")  # pictures of each objective
VARIED = {"slice": 1, "contour": 2, "parallel": 2}  # how many parameters must vary for a plot
LEAST_TRIALS = 5  # done, for importances to mean anything
MAX_CONTOURS = 4  # parameters in the matrix of contours on the page
BUTTONS = {"showSendToCloud": False, "displaylogo": False}  # nothing leaves this machine
HEIGHT, ROW = 420, 180  # pixels: of a plot, of a row of the matrix
WIDE = 2  # largest value / least value from which on an axis of the memory's picture is logarithmic


class NothingToDraw(Exception):
    """A picture that the trials do not give; the sentence says why."""


def done_or_nothing(results: optuna.Study) -> list[FrozenTrial]:
    """The trials that are done. Raises NothingToDraw if there are none."""
    if trials := done_trials(results):
        return trials
    raise NothingToDraw("no trial is done")


# ---- what the trials depend on ----


def importances(results: optuna.Study, place: int = 0) -> dict[str, float]:
    """How much each varied parameter decides whether a trial is among the best, most first; they sum to 1.

    PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255. Raises NothingToDraw if too few trials are done.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that less is better, which the target sees to
        return get_param_importances(results, **_for_importances(results, place))


def _for_importances(results: optuna.Study, place: int) -> dict[str, Any]:
    """Arguments: compare the best tenth with all trials, or the best five if that is more. Raises NothingToDraw."""
    trials, names, sign = done_or_nothing(results), varied(results), signs(results)[place]
    if len(trials) < LEAST_TRIALS:
        raise NothingToDraw(f"importances need {LEAST_TRIALS} trials that are done, and there are {len(trials)}")
    if not names:
        raise NothingToDraw("no parameter varies among the trials that are done")
    best = min(0.5, max(0.1, LEAST_TRIALS / len(trials)))
    return {"evaluator": PedAnovaImportanceEvaluator(target_quantile=best), "params": names,
            "target": lambda trial: sign * trial.values[place]}


def by_importance(results: optuna.Study, place: int) -> list[str]:
    """The parameters that vary among the trials that are done, the most important first if that can be told."""
    try:
        return list(importances(results, place))
    except NothingToDraw:
        return varied(results)


def varied(results: optuna.Study) -> list[str]:
    """The parameters of which the trials that are done have more than one value."""
    values: dict[str, set[str]] = {}
    for trial in done_trials(results):
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1]


# ---- plots ----


def draw(results: optuna.Study, kind: str, place: int = 0) -> Figure:
    """A picture: one of KINDS for an objective, or pareto. Raises NothingToDraw."""
    done_or_nothing(results)
    with warnings.catch_warnings(), plt.rc_context():  # Optuna sets a style for all figures
        warnings.simplefilter("ignore")
        figure = np.ravel(_plot(visualization.matplotlib, results, kind, place, most=2))[0].figure
        plt.close(figure)  # so that a notebook shows it once
    for axes in figure.axes:
        show_choices_as_they_are(axes.xaxis)
        show_choices_as_they_are(axes.yaxis)
    return figure


def show_choices_as_they_are(axis: Axis) -> None:
    """Have the words of an axis hold no formula; numbers keep theirs, such as a power of ten."""
    words = axis.get_major_formatter()
    if isinstance(words, FixedFormatter | FuncFormatter | StrCategoryFormatter):
        axis.set_major_formatter(FuncFormatter(lambda value, place: label(words(value, place))))


def page(results: optuna.Study) -> str:
    """All plots, interactive, as one HTML page that needs no network. Raises NothingToDraw."""
    done_or_nothing(results)
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
    several = len(results.directions) > 1
    one = {"target": (lambda trial: trial.values[place]) if several else None, "target_name": column}
    if len(names) < (least := VARIED.get(kind, 0)):
        needed = "two parameters that vary" if least == 2 else "a parameter that varies"
        raise NothingToDraw(f"{kind} needs {needed} among the trials that are done")
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
        case "pareto" if len(results.directions) > 3:
            raise NothingToDraw(f"Optuna draws the front of 2 or 3 objectives, not of {len(results.directions)}")
        case "pareto":
            return backend.plot_pareto_front(results, target_names=columns(results))


# ---- the picture that Optuna has not ----


def draw_memory(results: optuna.Study) -> Figure:
    """The first objective against memory: predicted from least to most, measured, the limit, what was skipped."""
    trials = [trial for trial in done_or_nothing(results) if trial.user_attrs.get("predicted_low_bytes")]
    if not trials:
        raise NothingToDraw("no trial that is done has a predicted size")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes, values = figure.subplots(), [trial.values[0] for trial in trials]
    low, high = ([trial.user_attrs[f"predicted_{end}_bytes"] for trial in trials] for end in ("low", "high"))
    axes.hlines(values, low, high, color="tab:blue", alpha=0.35, linewidth=2, label="predicted, least to most")
    peaks = [trial.user_attrs.get("peak_bytes", np.nan) for trial in trials]
    axes.plot(peaks, values, "o", markersize=4, color="tab:blue", label="measured")
    skipped = [trial.user_attrs["predicted_low_bytes"] for trial in ended(results, "oversized")]
    if skipped:  # the layout fails over an empty line that nothing clips
        axes.plot(skipped, np.ones(len(skipped)), "x", color="gray", markersize=5, alpha=0.7, clip_on=False,
                  transform=axes.get_xaxis_transform(), label=f"skipped, {len(skipped)}: least predicted")
    limit, column = results.user_attrs["limit_bytes"], columns(results)[0]
    axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {limit / 1e9:.3g} GB")
    if max(*high, *skipped) > WIDE * min(low):
        logarithmic(axes.xaxis)
    if signs(results)[0] == 1 and max(values) > WIDE * min(values) > 0:
        logarithmic(axes.yaxis)
    axes.xaxis.set_major_formatter(EngFormatter("B"))
    if max(values) >= 10_000:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel="memory of the process", ylabel=COLUMNS.get(column, column))
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
