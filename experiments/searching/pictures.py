"""Pictures of a search: what mattered, how it went, what it cost in memory, which trials no other beats."""

from collections.abc import Sequence

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial

from experiments.searching import scales
from experiments.searching.importance import NothingToDraw, done_or_nothing, importances
from experiments.searching.outcomes import FAILED, best_trials, columns, ended, signs

OTHERS = {"pruned": ("|", "tab:orange", ("pruned",)), "skipped for memory": ("x", "gray", ("oversized",)),
          "invalid": ("1", "tab:brown", ("invalid",)), "failed": ("v", "tab:red", FAILED)}  # mark, colour, outcomes
MAX_NUMBERED = 15  # trials on the front, beyond which their numbers would overlap


def draw_importances(results: optuna.Study, place: int = 0) -> Figure:
    """A bar for each parameter that varies, the most important first."""
    found = importances(results, place)
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(found)), layout="constrained")
    axes, names = figure.subplots(), list(found)[::-1]
    axes.bar_label(axes.barh(names, [found[name] for name in names]), fmt="{:.0%}", padding=3)
    axes.set(title=f"what {columns(results)[place]} depends on", xlim=(0, 1.12 * max(found.values())))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_history(results: optuna.Study, place: int = 0) -> Figure:
    """Each trial's value in the order of time, the best so far, and on the upper edge what became of the others."""
    trials = done_or_nothing(results)
    numbers, values = [trial.number for trial in trials], [trial.values[place] for trial in trials]
    best = np.minimum if signs(results)[place] == 1 else np.maximum
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(numbers, values, "o", markersize=4, alpha=0.7, label=f"done, {len(trials)}")
    axes.step(numbers, best.accumulate(values), where="post", linewidth=1.5, color="tab:blue", label="best so far")
    for label, (mark, colour, outcomes) in OTHERS.items():
        others = [trial.number for trial in ended(results, *outcomes)]
        scales.mark_upper_edge(axes, others, mark, colour, f"{label}, {len(others)}")
    scales.objective(axes.yaxis, columns(results)[place], values, signs(results)[place])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("trial")
    _finish(axes)
    return figure


def draw_memory(results: optuna.Study) -> Figure:
    """The first objective against memory: predicted from least to most, measured, the limit, what was skipped."""
    trials = [trial for trial in done_or_nothing(results) if trial.user_attrs.get("predicted_low_bytes")]
    if not trials:
        raise NothingToDraw("no trial that is done has a predicted size")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes, values = figure.subplots(), [trial.values[0] for trial in trials]
    low, high = ([trial.user_attrs[f"predicted_{end}_bytes"] for trial in trials] for end in ("low", "high"))
    axes.hlines(values, low, high, color="tab:blue", alpha=0.35, linewidth=2, label="predicted, least to most")
    peaks = [(trial.user_attrs.get("peak_bytes", np.nan), trial.values[0]) for trial in trials]
    axes.plot(*np.transpose(peaks), "o", markersize=4, color="tab:blue", label="measured")
    skipped = [trial.user_attrs["predicted_low_bytes"] for trial in ended(results, "oversized")]
    scales.mark_upper_edge(axes, skipped, "x", "gray", f"skipped, {len(skipped)}: least predicted")
    if limit := results.user_attrs.get("limit_bytes"):
        axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {limit / 1e9:.3g} GB")
    scales.memory(axes.xaxis, [*low, *high, *skipped])
    scales.objective(axes.yaxis, columns(results)[0], values, signs(results)[0])
    _finish(axes)
    return figure


def draw_pareto(results: optuna.Study) -> Figure:
    """The first of several objectives against each of the others, with the trials that no other beats in all."""
    names, trials, front = columns(results), done_or_nothing(results), best_trials(results)
    figure = Figure(figsize=(6 * (len(names) - 1) + 1, 4.5), layout="constrained")
    grid = figure.subplots(1, len(names) - 1, squeeze=False)[0]
    for place, axes in enumerate(grid, 1):
        best = sorted(front, key=lambda trial: signs(results)[place] * trial.values[place])
        axes.plot(*_points(trials, place), "o", markersize=4, color="silver", label="beaten by another")
        axes.plot(*_points(best, place), "o", markersize=6, color="tab:red", label=f"best, {len(best)}")
        if len(names) == 2:
            axes.step(*_points(best, place), where="post", color="tab:red", linewidth=1)
        for trial in best[:MAX_NUMBERED]:
            axes.annotate(str(trial.number), (trial.values[place], trial.values[0]), (5, 4),
                          textcoords="offset points", fontsize="small")
        for axis, which in ((axes.xaxis, place), (axes.yaxis, 0)):
            scales.objective(axis, names[which], [trial.values[which] for trial in trials], signs(results)[which])
        _finish(axes, legend=axes is grid[-1])
    return figure


def _points(trials: Sequence[FrozenTrial], place: int) -> tuple[list[float], list[float]]:
    return [trial.values[place] for trial in trials], [trial.values[0] for trial in trials]


def _finish(axes: Axes, *, legend: bool = True) -> None:
    axes.grid(alpha=0.3, which="both")
    if legend:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
