"""The parts of every report: tables and lists in Markdown, pictures as files."""

import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from configuration.command_line import literal, printable
from run_store.atomic_files import write_bytes

MAX_POINTS = 1000  # of a curve that are drawn at once; matplotlib holds every pixel that they touch in memory


class Markdown(str):
    """A text that is Markdown already, not a name or a text of others."""


def plain(text: Any) -> str:
    """A text as Markdown that shows it as it is, on one line, and holds no HTML."""
    if isinstance(text, Markdown):
        return text
    text = re.sub(r"[\\`]", r"\\\g<0>", " ".join(printable(str(text)).split("\n")))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """A text as a block of code, whatever marks it holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    """A table as CSV without formulas; the options are pandas's."""
    words = [name for name, kind in table.dtypes.items() if not is_numeric_dtype(kind)]
    safe = table.assign(**{name: table[name].map(literal, na_action="ignore") for name in words})
    return safe.rename(columns=literal, index=literal).to_csv(**options)


def markdown_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table in Markdown; its columns are the keys of all rows, in the order in which they first come."""
    rows = list(rows)
    heading = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heading, ["---"] * len(heading), *([row.get(name, "") for name in heading] for row in rows)]
    return "\n".join(f"| {' | '.join(plain(cell).replace('|', '/') for cell in line)} |" for line in lines)


def cell(form: str, *values: float) -> str:
    """A number, or the two ends of an interval, in a table; "" for nan."""
    return "" if any(map(math.isnan, values)) else " to ".join(format(value, form) for value in values)


def bullets(sentences: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def write_picture(path: Path, figure: Figure, dpi: int = 130, **options: Any) -> None:
    """Write a figure as a PNG, whole or not at all; the options are savefig's."""
    picture = io.BytesIO()
    with rc_context({"agg.path.chunksize": MAX_POINTS}):
        figure.savefig(picture, dpi=dpi, **options)
    write_bytes(path, picture.getvalue())
