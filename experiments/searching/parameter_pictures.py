"""Pictures of a search: an objective against one parameter, and against two."""

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial

from experiments.searching import scales
from experiments.searching.importance import LEAST_TRIALS, NothingToDraw, by_importance, done_or_nothing
from experiments.searching.outcomes import best_trials, columns, done_trials, ended, signs
from experiments.searching.scales import Parameter

MAX_SLICES = 16
SMOOTHING = 0.12  # standard deviation of the contour's kernel, as a share of an axis
FAR = 0.2  # where the kernels of all trials together weigh less, nothing is known


def draw_slices(results: optuna.Study, place: int = 0) -> Figure:
    """An objective against each parameter, the most important first; crosses are what was skipped for memory."""
    trials = done_or_nothing(results)
    names = by_importance(results, place)[:MAX_SLICES]
    if not names:
        raise NothingToDraw("no parameter varies among the trials that are done")
    rows, across = scales.panels(len(names))
    figure = Figure(figsize=(3 * across + 1.5, 2.9 * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, across, sharey=True, squeeze=False).flat)
    colours = Normalize(0, max(1, trials[-1].number))
    for axes, name in zip(grid, names, strict=False):
        drawn = _draw_slice(axes, results, name, place, colours)
    for axes in grid[::across]:
        scales.objective(axes.yaxis, columns(results)[place], [trial.values[place] for trial in trials],
                         signs(results)[place])
    for empty in grid[len(names):]:
        empty.set_axis_off()
    figure.colorbar(drawn, ax=grid, label="trial", aspect=15 * rows, pad=0.01, ticks=MaxNLocator(integer=True))
    figure.supxlabel("ringed: the best trial; crosses on the upper edge: skipped for memory", fontsize="small")
    return figure


def _draw_slice(axes: Axes, results: optuna.Study, name: str, place: int, colours: Normalize):
    parameter = Parameter(name, results.get_trials(deepcopy=False))
    trials, skipped = (parameter.given(some) for some in (done_trials(results), ended(results, "oversized")))
    drawn = axes.scatter(parameter.positions(trials), [trial.values[place] for trial in trials], s=18, alpha=0.8,
                         c=[trial.number for trial in trials], cmap="viridis", norm=colours)
    scales.mark_upper_edge(axes, parameter.positions(skipped), "x", "gray", "skipped for memory")
    best = parameter.given(best_trials(results)[:1])
    axes.plot(parameter.positions(best), [trial.values[place] for trial in best], "o", markersize=9, fillstyle="none",
              color="tab:red")
    parameter.label(axes.xaxis)
    axes.grid(alpha=0.3)
    return drawn


def draw_contour(results: optuna.Study, place: int = 0) -> Figure:
    """An objective over the two most important parameters, smoothed between the trials, and what was skipped."""
    done_or_nothing(results)
    everything, names = results.get_trials(deepcopy=False), by_importance(results, place)[:2]
    pair = [Parameter(name, everything) for name in names]
    trials, skipped = done_trials(results), ended(results, "oversized")
    for parameter in pair:
        trials, skipped = parameter.given(trials), parameter.given(skipped)
    if len(pair) < 2 or len(trials) < LEAST_TRIALS:
        raise NothingToDraw(f"a contour needs two parameters that vary, and {LEAST_TRIALS} trials with both")
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes, (across, up), sign = figure.subplots(), pair, signs(results)[place]
    values = [trial.values[place] for trial in trials]
    ends = (min(values), np.quantile(values, 0.9)) if sign == 1 else (np.quantile(values, 0.1), max(values))
    colours = Normalize(*ends)  # the worst tenth takes no colours away from the others
    drawn = _draw_field(axes, across, up, trials, values, cmap="viridis", norm=colours)
    axes.plot(across.positions(skipped), up.positions(skipped, 0.755), "x", color="black", markersize=5, alpha=0.6)
    across.label(axes.xaxis)
    up.label(axes.yaxis)
    scales.name(figure.colorbar(drawn, ax=axes).ax.yaxis, columns(results)[place])
    axes.set_title("dots: trials, smoothed between them; crosses: skipped for memory", fontsize="small")
    return figure


def _draw_field(
    axes: Axes, across: Parameter, up: Parameter, trials: list[FrozenTrial], values: list[float], **colours,
) -> QuadMesh:
    """The trials as dots over the mean of their neighbours."""
    weights = [parameter.nearness(trials, SMOOTHING) for parameter in (up, across)]  # (grid, trials) each
    near = np.einsum("yn,xn->yxn", *weights)
    total = near.sum(-1)
    field = np.where(total > FAR, near @ np.array(values) / np.maximum(total, FAR), np.nan)
    drawn = axes.pcolormesh(across.grid(), up.grid(), field, shading="nearest", alpha=0.75, **colours)
    if across.choices is None and up.choices is None:
        axes.contour(across.grid(), up.grid(), field, levels=8, colors="white", linewidths=0.6, alpha=0.8)
    axes.scatter(across.positions(trials), up.positions(trials, 0.755), c=values, s=22, edgecolors="black",
                 linewidths=0.5, **colours)
    return drawn
