"""The forest plot: the difference of each variant to the base with its interval, and every seed."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ablating.results import BETTER, NOISE, WORSE
from experiments.ablating.variants import BASE

COLOURS = {BETTER: "#1b7f5c", WORSE: "#c0392b", NOISE: "#6b7577"}
OTHER = "#34495e"
ROW_INCHES, LABEL_CHARACTERS = 0.52, 34
BELOW = 0.22  # of a row: how far below its mean the seeds are drawn


def draw_forest(table: pd.DataFrame, values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Bits per byte minus the base's: dots are seeds, thick bars 95 %, thin ones 95 % for all of them together.

    `table` is a result_table, `values` has the runs of each variant. The best is on top; failed ones are left out.
    """
    rows = table[table.bits_per_byte.notna()].reset_index(drop=True)
    base = float(rows.loc[rows.variant == BASE, "bits_per_byte"].iloc[0])
    figure = Figure(figsize=(9.5, 1.7 + ROW_INCHES * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=OTHER, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for place, row in rows.iterrows():
        _draw_row(axes, place, row, np.asarray(values[row.variant]) - base)
    axes.set_yticks(range(len(rows)), ["\n".join(textwrap.wrap(name, LABEL_CHARACTERS)) for name in rows.variant])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("bits per byte less the base's; further left is better")
    axes.set_title(title, loc="left", fontsize="medium", pad=12)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _draw_row(axes: Axes, place: int, row: pd.Series, seeds: np.ndarray) -> None:
    """The seeds of a variant, its mean and intervals, and on the right its verdict."""
    colour, mean, said = COLOURS.get(row.verdict, OTHER), row.difference, f"{row.difference:+.4f}  {row.verdict}"
    low, high = row.difference_low, row.difference_high
    if row.variant == BASE:
        mean, said = 0.0, f"{row.bits_per_byte:.4f}"
        low, high = row.low - row.bits_per_byte, row.high - row.bits_per_byte
    else:
        axes.plot([row.wide_low, row.wide_high], [place, place], color=colour, linewidth=1.2, zorder=2)
    axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=2)
    axes.plot(seeds, np.full(len(seeds), place + BELOW), "o", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
    axes.plot(mean, place, "D", color=colour, markersize=7, markeredgecolor="white", zorder=4)
    axes.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small", color=colour)
