"""The curves of several lines in one picture."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from configuration.objectives import is_loss
from experiments.common.axes import label, logarithmic
from experiments.comparing.differences import PER_TOKEN, common_floor, tokenizers
from experiments.comparing.lines import AXES, COLUMNS, Line

# colours of Okabe & Ito, distinct for all kinds of colour vision; without yellow, the light ones darkened
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#c98a00", "#3d9bd1", "#6b7280")
DASHES = ("-", "--", ":")
FLOORED = {"bits_per_byte", "train_bits_per_byte"}
MARGIN = 0.05  # above and below the curves, as a share of their height
FEW = 60  # points; up to this number each is marked
WIDTH, MARK = 105, 7  # of the legend, and of a line's mark in it, in characters


def draw_lines(
    lines: Sequence[Line], *, y: Sequence[str] = (), x: str | None = None, smooth: float | None = None,
    log_x: bool = False, log_y: bool = True, start: float | None = None,
) -> Figure:
    """A panel for each column `y`, against steps, tokens, seconds or FLOPs, from `start` on; with the entropy if known.

    Runs that differ in their seed are drawn as their mean with a 95 % band. `smooth` below 1 is the weight of the past
    in an exponential mean; from 2 on, the rows of a centred window. Defaults: x = tokens if all lines have them, bytes
    of text if tokenizers differ; y = the validation loss that most have. Raises ValueError for a column that no line
    has, and for a loss per token if tokenizers differ.
    """
    x, y = x or default_axis(lines), tuple(y) or (default_column(lines),)
    for column in y:
        require(lines, column, x, start)
    figure = Figure(figsize=(8.5, 4.6 * len(y)), layout="constrained")
    panels = figure.subplots(len(y), squeeze=False, sharex=True)[:, 0]
    for axes, column in zip(panels, y, strict=True):
        for place, line in enumerate(lines):
            _draw(axes, line, column, x, smooth, start, color=COLORS[place % len(COLORS)],
                  linestyle=DASHES[place // len(COLORS) % len(DASHES)])
        _finish(axes, lines, column, x, log_x=log_x, log_y=log_y)
    if smooth is not None:
        how = f"exponential mean, {smooth:g} for the past" if smooth < 1 else f"mean of {smooth:g} rows"
        panels[0].set_title(f"smoothed: {how}", loc="left", fontsize="small", color="gray")
    _legend(figure, panels)
    return figure


# ---- axes and columns ----


def default_axis(lines: Sequence[Line]) -> str:
    """Tokens, or bytes if tokenizers differ, if all lines have them; else steps."""
    name = "bytes" if len(tokenizers(lines)) > 1 else "tokens"
    return name if all(line.has(name) for line in lines) else "step"


def default_column(lines: Sequence[Line]) -> str:
    """The validation loss that most lines have; in bits per byte if tokenizers differ."""
    def have(column: str) -> int:
        return sum(line.has(column) for line in lines)

    usable = ["bits_per_byte"] if len(tokenizers(lines)) > 1 else ["bits_per_byte", "val_loss", "train_loss"]
    return max(usable, key=have)


def require(lines: Sequence[Line], column: str, x: str, start: float | None = None) -> None:
    """Raise ValueError if a column cannot be drawn from `start` on."""
    if x not in AXES:
        raise ValueError(f"x={x} is not an axis: use one of {', '.join(AXES)}")
    if column in PER_TOKEN and len(tokenizers(lines)) > 1:
        raise ValueError(f"y={column} counts tokens, and the runs have different tokenizers: use bits_per_byte, or for "
                         "training train_bits_per_byte")
    drawn = [line.table.loc[line.table[column].notna(), x] for line in lines if line.has(column) and line.has(x)]
    if not drawn:
        there = dict.fromkeys(name for line in lines for name in line.table if name not in AXES and line.has(name))
        raise ValueError(f"y={column} against x={x} is in no log: use y of {', '.join(there)}")
    end = max(places.max() for places in drawn)
    if start is not None and start > end:
        raise ValueError(f"from={start:g} leaves nothing of {column}, which ends at {end:g} {AXES[x]}: use less")


def not_drawn(lines: Sequence[Line], columns: Sequence[str], x: str) -> list[str]:
    """A sentence on each line that lacks a column."""
    return [f"{line.name} has no {name} in its log: it is not drawn in this panel." for line in lines
            for name in (x, *columns) if not line.has(name)]


def smoothed(values: pd.Series, smooth: float | None) -> pd.Series:
    """The exponential or windowed mean; the first values are included."""
    if smooth is None:
        return values
    if smooth < 1:
        return values.ewm(alpha=1 - smooth).mean()
    return values.rolling(int(smooth), center=True, min_periods=1).mean()


def _draw(
    axes: Axes, line: Line, column: str, x: str, smooth: float | None, start: float | None, *, color: str,
    linestyle: str,
) -> None:
    """A line with its band, from `start` on."""
    if not (line.has(column) and line.has(x)):
        return
    frames = [frame for frame in (line.table, line.low, line.high) if frame is not None]
    there = line.table[column].notna() & line.table[x].notna()
    place = line.table.loc[there, x]
    shown = place >= (place.min() if start is None else start)
    mean, *ends = (smoothed(frame.loc[there, column], smooth)[shown] for frame in frames)
    name = line.name if len(line.members) == 1 else f"{line.name} ({len(line.members)} seeds)"
    name += f" ({line.facts.meaning})" * bool(line.facts.meaning and is_loss(column))
    axes.plot(place[shown], mean, color=color, linestyle=linestyle, linewidth=1.8, label=label(name),
              marker="o" if len(mean) <= FEW else None, markersize=3.5)
    if ends:
        axes.fill_between(place[shown], *ends, color=color, alpha=0.18, linewidth=0)


def _finish(axes: Axes, lines: Sequence[Line], column: str, x: str, *, log_x: bool, log_y: bool) -> None:
    """Scales, labels, the entropy, and limits set by the curves: a band of two seeds would be too wide."""
    values = pd.concat([pd.Series(line.get_ydata()) for line in axes.get_lines()])
    low, high = values.min(), values.max()
    log_y = log_y and low > 0
    if column in FLOORED and (floor := common_floor(lines)) is not None:
        name = f"entropy of the text, {floor:.3f}"
        is_near = low / floor <= high / low if log_y else low - floor <= high - low
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=name if is_near else f"{name} (below)")
        low = min(low, floor) if is_near else low
    if high > low:
        room = (high / low) ** MARGIN if log_y else MARGIN * (high - low)
        axes.set_ylim(*((low / room, high * room) if log_y else (low - room, high + room)))
    if log_y:
        logarithmic(axes.yaxis)
    if log_x:
        logarithmic(axes.xaxis)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel=AXES[x], ylabel=COLUMNS.get(column, label(column)))
    axes.label_outer()
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels, in a single row if there is room."""
    found = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    widths = [len(name) + MARK for name in found]
    across = max(1, len(found) if sum(widths) <= WIDTH else WIDTH // max(widths))
    figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=across, frameon=False)
