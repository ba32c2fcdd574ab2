"""Axes of pictures: readable ticks on logarithmic axes, names and units of what is measured."""

import math
from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

NAMES = {"bits_per_byte": "bits per byte, validation", "val_loss": "validation loss, nats per token",
         "train_loss": "training loss, nats per token", "ema_val_loss": "validation loss of the averaged weights",
         "accuracy": "accuracy, validation", "flops": "FLOP", "peak_bytes": "peak memory of the process"}
UNITS = {"peak_bytes": "B", "parameters": "", "flops": "", "tokens": ""}  # with k, M, G before them
WIDE = 2  # largest value / least value from which on an axis of measurements is logarithmic
DENSITIES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))  # ticks of a decade
TICKS_PER_INCH = 1.3


def objective(axis: Axis, column: str, values: Sequence[float], sign: int) -> None:
    """Name an objective's axis; make it logarithmic if less is better (sign 1) and the values lie far apart."""
    if sign == 1 and min(values) > 0 and max(values) > WIDE * min(values):
        logarithmic(axis)
    axis.set_label_text(NAMES.get(column, column.replace("_", " ")))
    if column in UNITS:
        axis.set_major_formatter(EngFormatter(UNITS[column]))


def memory(axis: Axis, values: Sequence[float]) -> None:
    """Name an axis of bytes; make it logarithmic if they lie far apart."""
    axis.set_label_text("memory of the process")
    if max(values) > WIDE * min(values):
        logarithmic(axis)
    axis.set_major_formatter(EngFormatter("B"))


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with as many ticks as it has room for."""
    across = axis.axis_name == "x"
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.axes.get_xlim() if across else axis.axes.get_ylim()
    box = axis.axes.bbox
    inches = (box.width if across else box.height) / axis.axes.figure.dpi
    ticks = min(DENSITIES, key=lambda subs: abs(len(subs) * math.log10(high / low) - TICKS_PER_INCH * inches))
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
