"""The picture of a scaling study: the loss against tokens and against FLOPs, with the law."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.common.axes import label, logarithmic
from experiments.scaling_laws.conclusions import Conclusions, costs_of
from experiments.scaling_laws.optimum import optimum

COLOURS = colormaps["viridis_r"]
MARGIN = 1.3  # of the axes beyond the runs
ROOM = 1.015  # above and below the losses
CURVE = 100  # points of a curve


def draw_study(table: pd.DataFrame, found: Conclusions | None, entropy: float | None, title: str) -> Figure:
    """A colour for each size; lines are the law's, if there is one."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sizes = sorted(table.parameters.unique())
    for place, size in enumerate(sizes):
        colour = COLOURS(0.08 + 0.92 * place / max(1, len(sizes) - 1))
        draw_size(left, right, table[table.parameters == size], found, colour)
    finish(left, right, table, found, entropy)
    if found:
        below = " (below)" if left.get_ylim()[0] > found.free.law.E else ""
        left.axhspan(*found.free.ranges["E"], color="#c0392b", alpha=0.12, linewidth=0)
        left.axhline(found.free.law.E, color="#c0392b", linewidth=1.2, label=f"E, with its 95 % interval{below}")
        draw_best(right, table, found)
    for axes in (left, right) if entropy else ():
        axes.axhline(entropy, color="black", linestyle="--", linewidth=1, label=f"entropy of the text, {entropy:.3f}")
    handles = {name: handle for axes in (left, right)
               for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside right center", fontsize=9, frameon=False)
    figure.suptitle(label(title), fontsize=11)
    return figure


def draw_size(left: Axes, right: Axes, runs: pd.DataFrame, found: Conclusions | None, colour: tuple) -> None:
    """The runs of a size, and the law for it."""
    size, per_token = runs.parameters.iloc[0], (runs.flops / runs.tokens).mean()
    name = f"{EngFormatter(sep='', places=0)(size)} parameters"
    left.plot(runs.tokens, runs.bits_per_byte, "o", color=colour, markersize=4, label=name)
    right.plot(runs.flops, runs.bits_per_byte, "o", color=colour, markersize=4)
    if found:
        tokens = np.geomspace(runs.tokens.min() / MARGIN, runs.tokens.max() * MARGIN, CURVE)
        losses = found.free.law.loss(size, tokens)
        left.plot(tokens, losses, color=colour, linewidth=1.2)
        right.plot(tokens * per_token, losses, color=colour, linewidth=1.2)


def draw_best(axes: Axes, table: pd.DataFrame, found: Conclusions) -> None:
    """The loss of the best size for each budget, where that lies between the sizes of the study."""
    costs, budgets = costs_of(table), np.geomspace(table.flops.min(), table.flops.max(), CURVE)
    best = [one for one in (optimum(found.free.law, costs, budget) for budget in budgets) if one.is_inside]
    if best:
        axes.plot([one.flops for one in best], [one.loss for one in best], color="#e67e22", linewidth=2.5, alpha=0.8,
                  label="the best size for the FLOPs")


def finish(left: Axes, right: Axes, table: pd.DataFrame, found: Conclusions | None, entropy: float | None) -> None:
    """Scales, labels and limits."""
    ends = [table.bits_per_byte.min(), table.bits_per_byte.max()]
    ends += [entropy] if entropy else []
    ends += [max(found.free.law.E, 0.8 * ends[0])] if found else []  # a far E would flatten the curves
    left.set_ylim(min(ends) / ROOM**2, max(ends) * ROOM**2)
    left.set(ylabel="bits per byte, text held out")
    for axes, name, values in ((left, "training tokens", table.tokens), (right, "training FLOPs", table.flops)):
        axes.set_xlim(values.min() / MARGIN, values.max() * MARGIN)
        logarithmic(axes.xaxis)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set(xlabel=name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    logarithmic(left.yaxis)
