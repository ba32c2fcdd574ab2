"""Axes of the pictures: a parameter's or an objective's values as positions, with ticks that can be read."""

import math
import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

NAMES = {"bits_per_byte": "bits per byte, validation", "val_loss": "validation loss, nats per token",
         "train_loss": "training loss, nats per token", "ema_val_loss": "validation loss of the averaged weights",
         "accuracy": "accuracy, validation", "flops": "FLOP", "peak_bytes": "peak memory of the process"}
UNITS = {"peak_bytes": "B", "parameters": "", "flops": "", "tokens": ""}  # with k, M, G before them
WIDE = 2  # largest value over the least from which on an axis of measurements is logarithmic
DENSITIES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))  # ticks of a decade
TICKS_PER_INCH = 1.3
PANEL_CHARACTERS = 30  # that fit side by side below a panel
MARGIN = 0.04  # beyond the outermost values, as a share of an axis
FINE = 200  # points of a grid along a numeric axis


class Parameter:
    """One parameter of a search, as an axis: positions for its values, on the scale of its distribution."""

    def __init__(self, name: str, trials: Sequence[FrozenTrial]):
        self.name = name
        values = [trial.params[name] for trial in self.given(trials)]
        kinds = [trial.distributions[name] for trial in self.given(trials)]
        self.log = all(getattr(kind, "log", False) for kind in kinds)
        self.whole = all(isinstance(value, int) for value in values)
        self.choices = None
        if any(isinstance(kind, CategoricalDistribution) for kind in kinds):
            self.choices = list(dict.fromkeys(str(choice) for kind in kinds for choice in getattr(kind, "choices", ())))
            self.low, self.high = 0, len(self.choices) - 1
        else:
            self.low, self.high = min(values), max(values)

    def given(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that have the parameter: a conditional one is not in all."""
        return [trial for trial in trials if self.name in trial.params]

    def positions(self, trials: Sequence[FrozenTrial], spread: float = 0.618) -> np.ndarray:
        """Where the trials stand on the axis; those of one choice a little apart, as `spread` has it."""
        if self.choices is None:
            return np.array([trial.params[self.name] for trial in trials], dtype=float)
        apart = [0.5 * (trial.number * spread % 1 - 0.5) for trial in trials]
        return np.array([self.choices.index(str(trial.params[self.name])) for trial in trials]) + np.array(apart)

    def grid(self) -> np.ndarray:
        """Points along the axis: every choice, or evenly spread ones."""
        if self.choices is not None:
            return np.arange(len(self.choices))
        if self.log:
            margin = (self.high / self.low) ** MARGIN
            return np.geomspace(self.low / margin, self.high * margin, FINE)
        margin = MARGIN * (self.high - self.low)
        return np.linspace(self.low - margin, self.high + margin, FINE)

    def nearness(self, trials: Sequence[FrozenTrial], width: float) -> np.ndarray:
        """Weight of each trial at each point of the grid, (points, trials): a Gauss curve; 1 or 0 for choices."""
        if self.choices is not None:
            return (self.grid()[:, None] == np.rint(self.positions(trials))).astype(float)
        scale = np.log if self.log else np.asarray
        places, points = scale(self.positions(trials)), scale(self.grid())
        return np.exp(-(((points[:, None] - places) / (width * (points[-1] - points[0]))) ** 2) / 2)

    def label(self, axis: Axis) -> None:
        """Name the axis and its ticks."""
        axis.set_label_text(self.name)
        if self.choices is None:
            logarithmic(axis) if self.log else axis.set_major_locator(MaxNLocator(5, integer=self.whole))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            return
        texts = [_wrapped(choice) for choice in self.choices]
        axis.axes.set(**{f"{axis.axis_name}lim": (-0.5, len(texts) - 0.5)})
        axis.set_ticks(range(len(texts)), texts)
        if axis.axis_name == "x" and sum(max(map(len, text.split("\n"))) for text in texts) > PANEL_CHARACTERS:
            axis.set_tick_params(rotation=90, labelsize="small")


def name(axis: Axis, column: str) -> None:
    """Name an objective's axis, or its bar of colours, with units."""
    axis.set_label_text(NAMES.get(column, column.replace("_", " ")))
    if column in UNITS:
        axis.set_major_formatter(EngFormatter(UNITS[column]))


def objective(axis: Axis, column: str, values: Sequence[float], sign: int) -> None:
    """An objective's axis; logarithmic where less is better (sign 1) and the values lie far apart."""
    if sign == 1 and min(values) > 0 and max(values) > WIDE * min(values):
        logarithmic(axis)
    name(axis, column)


def memory(axis: Axis, values: Sequence[float]) -> None:
    """Name an axis of bytes; logarithmic where they lie far apart."""
    axis.set_label_text("memory of the process")
    if max(values) > WIDE * min(values):
        logarithmic(axis)
    axis.set_major_formatter(EngFormatter("B"))


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with as many numbers written out as it has room for."""
    across = axis.axis_name == "x"
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.axes.get_xlim() if across else axis.axes.get_ylim()
    box = axis.axes.bbox
    inches = (box.width if across else box.height) / axis.axes.figure.dpi
    ticks = min(DENSITIES, key=lambda subs: abs(len(subs) * math.log10(high / low) - TICKS_PER_INCH * inches))
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def mark_upper_edge(axes: Axes, places: Sequence[float], mark: str, colour: str, label: str) -> None:
    """Marks for trials without a value."""
    if len(places):  # the layout fails over an empty line that nothing clips
        axes.plot(places, np.ones(len(places)), mark, color=colour, markersize=5, alpha=0.7, label=label,
                  transform=axes.get_xaxis_transform(), clip_on=False)


def panels(count: int, most: int = 4) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    across = math.ceil(count / math.ceil(count / most))
    return math.ceil(count / across), across


def _wrapped(choice: str) -> str:
    """A choice in short lines; a list, which Optuna keeps as JSON, without its signs."""
    words = re.sub(r'[\[\]",]', "", choice)
    return "\n".join(textwrap.wrap(words, 14, break_long_words=False, max_lines=3, placeholder=" …")) or choice
