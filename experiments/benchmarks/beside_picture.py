"""The benchmark beside: the tables of kept files of `train` or `generate` again, and one picture of their ratios."""

from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from experiments.benchmarks.beside import Cell, free_path, kept_in, table_of
from experiments.benchmarks.peer_options import Beside
from experiments.common.axes import label

COLOURS = {
    "transformers": "#e67e22", "transformers, dynamic": "#e67e22", "transformers, static": "#f5b041",
    "litgpt": "#8e44ad", "x-transformers": "#2e86c1"}
ROW = 0.19  # inches of a library in a cell


def run(options: Beside, console: Console) -> bool:
    """Print what the files hold and draw it. Raises ValueError for a file that is none of those."""
    picture = free_path(options.picture, "--picture")
    cells = [cell for name in options.files for cell in kept_in(Path(name)).cells]
    for cell in cells:
        console.print(table_of(cell, {}))
    draw(cells).savefig(picture, dpi=110)
    console.print(f"written to {picture}")
    return True


def draw(cells: list[Cell]) -> Figure:
    """How many times as fast ours is: for each cell a row for each library, a dot and the range of the rounds."""
    rows = [(cell, name) for cell in cells for name in cell.others]
    figure = Figure(figsize=(8.5, 1.1 + ROW * len(rows) + 0.1 * len(cells)), layout="constrained")
    axes = figure.subplots()
    place, ticks = 0.0, {}
    for cell in cells:
        first = place
        for name in cell.others:
            draw_row(axes, cell, name, place)
            place += 1.0
        ticks[(first + place - 1) / 2] = label(cell.name.rsplit(", vocabulary", 1)[0])
        place += 0.5
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=min(0.9, axes.get_xlim()[0]))
    axes.margins(y=0.3 / len(rows))
    axes.set_xlabel("times as fast: median of the rounds, least to most", fontsize=9)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_row(axes: Axes, cell: Cell, name: str, place: float) -> None:
    ratios, colour = cell.ratios(name), COLOURS.get(name, "grey")
    axes.plot([min(ratios), max(ratios)], [place, place], color=colour, linewidth=1.5)
    axes.plot([median(ratios)], [place], "o", color=colour, markersize=5, label=name)
