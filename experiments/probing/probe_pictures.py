"""Pictures of probes: a heat map of mixers and tasks, and the accuracy against the length of rows."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.common.axes import label
from experiments.common.intervals import Interval
from experiments.probing.probing import CellOutcome

COLOURS = "YlGnBu"
DARK = 0.6  # accuracy from which text on it is white
INCHES = 1.55, 0.72  # of a square of the map
INCHES_OF_A_LETTER = 0.08  # below it
COLUMNS = 3  # of curves
MARKS = "osD^vP*X"


def spell(found: Interval, between: str = "\n") -> str:
    """e.g. "98.1\n± 0.4" in percent; the interval is left out if there is none."""
    if math.isnan(found.mean):
        return "–"
    has_interval = found.count > 1 and not math.isnan(found.high)
    return f"{found.mean:.1%}" + (f"{between}± {found.high - found.mean:.1%}" if has_interval else "")


def grid(outcomes: Sequence[CellOutcome]) -> tuple[list[str], list[str], dict[tuple[str, str], CellOutcome]]:
    """The rows (mixers), the columns (tasks), and the outcomes by both."""
    mixers, tasks = ([*dict.fromkeys(getattr(found.cell, name) for found in outcomes)] for name in ("mixer", "task"))
    return mixers, tasks, {(found.cell.mixer, found.cell.task): found for found in outcomes}


def draw_heat_map(outcomes: Sequence[CellOutcome], title: str) -> Figure:
    """Accuracy at the length of the training, of each mixer on each task, with half its interval."""
    mixers, tasks, found = grid(outcomes)
    values = np.array([[found[m, t].accuracy[1].mean if (m, t) in found else math.nan for t in tasks] for m in mixers])
    longest = max(len(word) for task in tasks for word in task.split())
    width, height = max(INCHES[0], INCHES_OF_A_LETTER * longest), INCHES[1]
    figure = Figure(figsize=(2.6 + width * len(tasks), 1.5 + height * len(mixers)), layout="constrained")
    axes = figure.subplots()
    colours = colormaps[COLOURS].with_extremes(bad="#eeeeee")
    picture = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row, mixer in enumerate(mixers):
        for column, task in enumerate(tasks):
            if (one := found.get((mixer, task))) is not None:
                axes.text(column, row, spell(one.accuracy[1]), ha="center", va="center", fontsize=9,
                          color="white" if one.accuracy[1].mean >= DARK else "black")
    guesses = {one.cell.task: one.cell.guess for one in outcomes}
    names = ["\n".join([*label(task).split(), f"(guess {guesses[task]:.0%})"]) for task in tasks]
    axes.set_xticks(range(len(tasks)), names, fontsize=9)
    axes.set_yticks(range(len(mixers)), ["\n".join(label(mixer).split()) for mixer in mixers], fontsize=9)
    axes.set_title(label(title), fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, label="accuracy", format="{x:.0%}", fraction=0.04)
    return figure


def draw_lengths(outcomes: Sequence[CellOutcome], title: str) -> Figure:
    """Accuracy against the length of rows, a panel for each task and a curve for each mixer."""
    mixers, tasks, found = grid(outcomes)
    across = min(COLUMNS, len(tasks))
    down = -(-len(tasks) // across)
    figure = Figure(figsize=(1 + 3.6 * across, 1 + 2.7 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for panel, task in zip(panels, tasks, strict=False):
        draw_panel(panel, [found[mixer, task] for mixer in mixers if (mixer, task) in found], mixers)
        panel.set_title(label(task), fontsize=10)
    for panel in panels[len(tasks):]:
        panel.set_visible(False)
    legends = [panel.get_legend_handles_labels() for panel in panels]
    handles = {name: handle for legend in legends for handle, name in zip(*legend, strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(4, max(1, len(handles))), fontsize=9,
                  frameon=False)
    figure.suptitle(label(title), fontsize=10)
    return figure


def bar(found: Interval) -> tuple[float, float]:
    """How far an interval reaches below and above its mean; none reaches beyond 0 and 1."""
    if math.isnan(found.high):
        return 0.0, 0.0
    return found.mean - max(0.0, found.low), min(1.0, found.high) - found.mean


def draw_panel(panel, outcomes: Sequence[CellOutcome], mixers: Sequence[str]) -> None:
    """The curves of one task."""
    lengths = {}
    for one in outcomes:
        place = mixers.index(one.cell.mixer)
        row = one.cell.length + 1
        known = [(row * factor, value) for factor, value in sorted(one.accuracy.items()) if not math.isnan(value.mean)]
        lengths |= {length: None for length, _ in known}
        if known:
            x, values = zip(*known, strict=True)
            panel.errorbar(x, [value.mean for value in values], yerr=np.transpose([*map(bar, values)]), capsize=3,
                           color=f"C{place % 10}", marker=MARKS[place % len(MARKS)], label=label(one.cell.mixer))
    panel.axhline(outcomes[0].cell.guess, color="black", linestyle=":", linewidth=1, label="a constant guess")
    panel.set(xscale="log", xlabel="tokens of a row", ylim=(-0.03, 1.05))
    panel.set_xticks(sorted(lengths), [f"{length}" for length in sorted(lengths)])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter("{x:.0%}")
    panel.grid(alpha=0.3)
