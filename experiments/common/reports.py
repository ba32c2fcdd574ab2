"""The parts of every report: tables and lists in Markdown, pictures as files."""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from run_store.atomic_files import write_bytes


def markdown_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table in Markdown; its columns are the keys of all rows, in the order in which they first come."""
    rows = list(rows)
    heading = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heading, ["---"] * len(heading), *([row.get(name, "") for name in heading] for row in rows)]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def cell(form: str, *values: float) -> str:
    """A number, or the two ends of an interval, in a table; "" for nan."""
    return "" if any(map(math.isnan, values)) else " to ".join(format(value, form) for value in values)


def bullets(sentences: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def write_picture(path: Path, figure: Figure, dpi: int = 130, **options: Any) -> None:
    """Write a figure as a PNG, whole or not at all; the options are savefig's."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=dpi, **options)
    write_bytes(path, picture.getvalue())
