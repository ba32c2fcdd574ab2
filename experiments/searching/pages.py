"""Optuna's own interactive plots of a study, on one page that needs no network."""

import html
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna import visualization

from experiments.searching.importance import NothingToDraw, done_or_nothing, evaluator
from experiments.searching.outcomes import columns, done_trials, signs

MAX_CONTOURS = 4  # parameters of the matrix of contours, at most
BUTTONS = {"showSendToCloud": False, "displaylogo": False}  # nothing that leaves this machine
HEIGHT, ROW = 420, 180  # pixels: of a plot, of a row of the matrix


def page(results: optuna.Study, important: list[str]) -> str:
    """A `measured` study's plots as HTML; `important` are the parameters that vary, those first that matter most.

    Raises NothingToDraw where no trial is done, or plotly is not installed.
    """
    done_or_nothing(results)
    if not visualization.is_available():
        raise NothingToDraw("plotly is not installed: pip install plotly")
    parts, script = [], True  # plotly itself, 5 MB, once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what is experimental in Optuna
        for title, drawn, height in _plots(results, important):
            drawn.update_layout(title=None, template="plotly_white", height=height, margin={"t": 30})
            plot = drawn.to_html(full_html=False, include_plotlyjs=script, config=BUTTONS)
            parts.append(f"<section><h2>{html.escape(title)}</h2>\n{plot}</section>\n")
            script = False
    name = html.escape(results.study_name)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
            "<style>body{font-family:sans-serif;max-width:1400px;margin:1em auto} section{overflow-x:auto}</style>\n"
            f"</head><body><h1>{name}</h1>\n{''.join(parts)}</body></html>\n")


def _plots(results: optuna.Study, important: list[str]) -> Iterator[tuple[str, Any, int]]:
    """Title, plot and height, for as many as there is something to draw."""
    names = columns(results)
    if len(names) in (2, 3):
        yield "Pareto front", visualization.plot_pareto_front(results, target_names=names), HEIGHT + ROW
    for place, column in enumerate(names):
        yield from _of_objective(results, important, place, column)
    if len(names) == 1 and any(trial.intermediate_values for trial in results.get_trials(deepcopy=False)):
        yield "The trials as they went", visualization.plot_intermediate_values(results), HEIGHT


def _of_objective(
    results: optuna.Study, important: list[str], place: int, column: str,
) -> Iterator[tuple[str, Any, int]]:
    several = len(results.directions) > 1
    one = {"target": (lambda trial: trial.values[place]) if several else None, "target_name": column}
    yield f"{column}, trial by trial", visualization.plot_optimization_history(results, **one), HEIGHT
    if not important:
        return
    yield f"{column} by parameter", visualization.plot_slice(results, important, **one), HEIGHT
    done = done_trials(results)
    if len(done) > 1:
        drawn = visualization.plot_param_importances(  # it takes less for better
            results, evaluator=evaluator(len(done)), params=important, target_name=column,
            target=lambda trial: signs(results)[place] * trial.values[place])
        yield f"What {column} depends on", drawn, HEIGHT
    if len(important) > 1:
        pairs = important[:MAX_CONTOURS]
        yield (f"{column} by pairs of parameters", visualization.plot_contour(results, pairs, **one),
               HEIGHT + ROW * (len(pairs) - 2))
        drawn = visualization.plot_parallel_coordinate(results, important, **one)
        yield f"{column}, all parameters at once", drawn, HEIGHT
