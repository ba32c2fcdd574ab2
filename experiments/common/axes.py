"""Readable ticks on logarithmic axes, and names of others in pictures."""

import math
import re

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from configuration.command_line import printable

DENSITIES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))  # ticks of a decade
TICKS_PER_INCH = 1.3


def label(text: str) -> str:
    """A text as matplotlib shows it: dollars enclose no formula, and a first "_" does not hide it from a legend."""
    text = re.sub(r"[\n\t]", " ", printable(text)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


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
