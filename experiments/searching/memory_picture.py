"""The picture that Optuna has not: how good trials are against the memory that they take, and what was skipped."""

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.searching import axes as scales
from experiments.searching.outcomes import columns, ended, signs
from experiments.searching.plots import NothingToDraw, done_or_nothing


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
    mark_upper_edge(axes, skipped, f"skipped, {len(skipped)}: least predicted")
    if limit := results.user_attrs.get("limit_bytes"):
        axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {limit / 1e9:.3g} GB")
    scales.memory(axes.xaxis, [*low, *high, *skipped])
    scales.objective(axes.yaxis, columns(results)[0], values, signs(results)[0])
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def mark_upper_edge(axes: Axes, places: list[float], label: str) -> None:
    """Draw crosses for trials without a value."""
    if places:  # the layout fails over an empty line that nothing clips
        axes.plot(places, np.ones(len(places)), "x", color="gray", markersize=5, alpha=0.7, label=label,
                  transform=axes.get_xaxis_transform(), clip_on=False)
