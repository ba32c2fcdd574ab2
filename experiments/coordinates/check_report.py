"""The report on a coordinate check.

    experiments/results/<name>/
        width.png, depth.png   the numbers against the size        width.csv, depth.csv   the numbers
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from configuration.command_line import print_line
from experiments.common.axes import logarithmic
from experiments.common.reports import csv_text, write_picture
from experiments.coordinates.check_options import CheckOptions
from experiments.coordinates.measuring import LOGITS, MATRICES
from run_store.atomic_files import write_text
from run_store.listing import shown

MARKS = "osD^v"


class Line(NamedTuple):
    """The numbers of one place of a model at several sizes: means over the seeds, by size."""

    scaling: str
    place: str
    kind: str
    values: pd.Series

    @property
    def slope(self) -> float:
        """Of the logarithm of the numbers against that of the size; nan if a number is 0 or not finite."""
        values = self.values.to_numpy()
        if not (np.isfinite(values).all() and (values > 0).all()):
            return math.nan
        return float(np.polyfit(np.log2(self.values.index.to_numpy(float)), np.log2(values), 1)[0])


def lines_of(table: pd.DataFrame, axis: str) -> Iterator[Line]:
    """Places that the models of all sizes have: of models of several depths the blocks in the middle and at the end."""
    if axis == "depth":
        table = middle_and_last(table)
    means = table.groupby(["scaling", "place", "kind", axis], sort=False)["value"].mean()
    for key, values in means.groupby(level=["scaling", "place", "kind"], sort=False):
        yield Line(*key, values.droplevel(["scaling", "place", "kind"]).sort_index())


def middle_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """The table without other blocks."""
    number = table["place"].str.extract(r"^block (\d+)$")[0].astype(float)
    middle, last = number == (table["depth"] / 2).apply(math.ceil), number == table["depth"]
    named = table["place"].mask(middle, "middle block").mask(last, "last block")
    return table.assign(place=named)[number.isna() | middle | last]


def show(console: Console, options: CheckOptions, axis: str, table: pd.DataFrame) -> None:
    """Print the table and its summary, and write it and its picture."""
    lines = list(lines_of(table, axis))
    sizes = options.sizes(axis)
    printed = Table("scaling", "place", "mean", *(f"{axis} {size:,}" for size in sorted(sizes)), "slope")
    for line in lines:
        printed.add_row(line.scaling, line.place, line.kind, *(f"{value:.3g}" for value in line.values),
                        f"{line.slope:+.2f}")
    console.print(printed)
    for scaling in options.scalings:
        print_line(console, summary(scaling, axis, [line for line in lines if line.scaling == scaling]))
    options.folder.mkdir(parents=True, exist_ok=True)
    write_text(options.folder / f"{axis}.csv", csv_text(table, index=False))
    write_picture(options.folder / f"{axis}.png", draw(lines, axis, options))
    for kind in ("csv", "png"):
        print_line(console, f"wrote {shown(options.folder / f'{axis}.{kind}')}")


def summary(scaling: str, axis: str, lines: list[Line]) -> str:
    """The steepest slope of what a training of a few steps changes, inside the blocks and in attention's scores."""
    inside = [line for line in lines if line.place not in (LOGITS, MATRICES) and not math.isnan(line.slope)]
    if not inside:
        return f"{scaling}: no number inside the blocks is finite at every {axis}"
    steepest = max(inside, key=lambda line: abs(line.slope))
    return (f"{scaling}: the steepest slope inside the blocks is {steepest.slope:+.2f} ({steepest.place}, "
            f"{steepest.kind})")


def draw(lines: list[Line], axis: str, options: CheckOptions) -> Figure:
    """A panel for each place and kind, with a curve for each scaling."""
    panels = list(dict.fromkeys((line.place, line.kind) for line in lines))
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(1 + 2.8 * across, 0.8 + 2.5 * down), layout="constrained")
    spots = dict(zip(panels, figure.subplots(down, across, squeeze=False).ravel(), strict=False))
    for line in lines:
        number, panel = options.scalings.index(line.scaling), spots[line.place, line.kind]
        panel.plot(line.values.index, line.values, color=f"C{number}", marker=MARKS[number], label=line.scaling)
    for (place, kind), panel in spots.items():
        panel.set_title(f"{place}: {kind}", fontsize=9)
        for part in (panel.xaxis, panel.yaxis):
            logarithmic(part)
        panel.set_xticks(options.sizes(axis), [f"{size}" for size in options.sizes(axis)])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    for panel in figure.axes[len(panels):]:
        panel.set_visible(False)
    figure.legend(*next(iter(spots.values())).get_legend_handles_labels(), loc="outside lower center", ncols=3,
                  frameon=False)
    figure.suptitle(f"means of |x|, and of its change, after {options.steps} steps, against the {axis}", fontsize=10)
    return figure
