"""A comparison as one HTML page that needs no network: curves to zoom and hide, tables, texts side by side.

page.html is its frame, page.css its style, page.js draws the curves. Names and texts are not trusted: they are escaped,
and the page's policy allows no script except Plotly and page.js, and no request.
"""

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from experiments.comparing.curve_pictures import FLOORED, default_axis, default_column
from experiments.comparing.differences import PER_TOKEN, tokenizers
from experiments.comparing.lines import AXES, COLUMNS, Line
from run_store.atomic_files import write_text

LOGARITHMIC = {"bits_per_byte", "bits_over_floor", "train_bits_per_byte", "val_loss", "train_loss", "ema_val_loss",
               "perplexity"}
MAX_ROWS = 4000  # of a curve; neighbours in a longer log are averaged
DIGITS = 8
NUM_COLORS, DASHES = 7, ("solid", "dash", "dot")
FEW = 6  # lines; up to this number each is a column of the table of runs
LEGEND = '<p class="soft">In bold: different from the first.</p>'
HERE = Path(__file__).resolve().parent


def write_page(
    path: Path, *, title: str, lines: Sequence[Line], table: pd.DataFrame, differences: pd.DataFrame,
    remarks: Sequence[str], samples: Mapping[str, Sequence[Mapping[str, str]]], floor: float | None,
    column: str | None = None, axis: str | None = None,
) -> None:
    """Write the page, whole or not at all.

    `table` has a row of formatted strings for each line, `differences` a row for each flag and a column for each line;
    `remarks` are sentences; `samples` are texts by line, of the same prompts in each; `floor` is the text's entropy in
    bits per byte, None = unknown; `column` and `axis` are drawn first. Raises ValueError if no line has a curve.
    """
    keys = {line.name: place for place, line in enumerate(lines)}
    flags = table_html(differences, keys, "flags")
    sections = [section("The runs", table_html(table.T if len(table) <= FEW else table, keys, "runs")),
                section("The flags in which they differ", flags and f"{flags}\n{LEGEND}"),
                section("The same prompts, continued", samples_html(samples, keys))]
    script, plotly = (HERE / "page.js").read_text(encoding="utf-8"), get_plotlyjs()
    runs = sum(len(line.members) for line in lines)
    said = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
    page = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title), style=(HERE / "page.css").read_text(encoding="utf-8"), policy=policy(plotly, script),
        count=f"{counted(len(lines), 'curve')} of {counted(runs, 'run')}", sections="\n".join(filter(None, sections)),
        remarks=f'<ul class="remarks">{said}</ul>' if said else "", data=embedded(curves(lines, floor, column, axis)),
        plotly=plotly, script=script)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def policy(*scripts: str) -> str:
    """A content security policy that allows these scripts and no requests."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; "
            f"base-uri 'none'; script-src {allowed}")


def embedded(value: Any) -> str:
    """JSON for a script element, which no text in it can end."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# ---- curves ----


def curves(lines: Sequence[Line], floor: float | None, column: str | None, axis: str | None) -> dict[str, Any]:
    """The data of page.js: the lines' values, and the columns and axes that any line has."""
    drawn = [curve(place, line) for place, line in enumerate(lines)]
    found = {name for line in drawn for name in line["mean"]}
    axes = [name for name in AXES if name in found]
    names = [*filter(found.__contains__, COLUMNS), *sorted(found - COLUMNS.keys() - AXES.keys())]
    if not axes or not names:
        raise ValueError("none of the runs has a curve: train one first")
    barred = PER_TOKEN if len(tokenizers(lines)) > 1 else ()
    columns = [{"name": name, "label": COLUMNS.get(name, name), "log": name in LOGARITHMIC, "barred": name in barred,
                "floored": name in FLOORED and floor is not None} for name in names]
    return {"lines": drawn, "floor": floor, "columns": columns, "axes": [{"name": x, "label": AXES[x]} for x in axes],
            "column": place_of(column or default_column(lines), names),
            "axis": place_of(axis or default_axis(lines), axes)}


def place_of(name: str, names: Sequence[str]) -> int:
    """The index of a name; 0 if it is missing."""
    return names.index(name) if name in names else 0


def curve(place: int, line: Line) -> dict[str, Any]:
    """A line's values and style."""
    frames = {"mean": line.table, "low": line.low, "high": line.high}
    values = {name: None if frame is None else listed(frame) for name, frame in frames.items()}
    return {"name": line.name, "count": len(line.members), "color": color(place), "dash": dash(place), **values}


def color(place: int) -> str:
    """The CSS variable of a line's colour."""
    return f"--c{place % NUM_COLORS}"


def dash(place: int) -> str:
    """A line's dash: solid until all colours are used."""
    return DASHES[place // NUM_COLORS % len(DASHES)]


def listed(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """The numeric columns with at most MAX_ROWS values; None = not measured, or not finite."""
    numbers = frame.select_dtypes("number").astype(float).replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")
    if len(numbers) > MAX_ROWS:
        numbers = numbers.groupby(np.arange(len(numbers)) * MAX_ROWS // len(numbers)).mean()
    return {str(name): [None if math.isnan(x) else float(f"{x:.{DIGITS}g}") for x in column]
            for name, column in numbers.items()}


# ---- tables and texts ----


def section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>" if content else ""


def element(tag: str, content: str, **attributes: Any) -> str:
    """An element around HTML; attributes that are None are left out, and class_ is class."""
    spelled = "".join(f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
                      for name, value in attributes.items() if value is not None)
    return f"<{tag}{spelled}>{content}</{tag}>"


def table_html(frame: pd.DataFrame, keys: Mapping[str, int], kind: str) -> str:
    """A table in which the lines' names have their legend keys; flags unlike the first line's are highlighted."""
    heads = "".join(head(name, keys, "col") for name in frame.columns)
    rows = []
    for name, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        cells = (element("td", text(value), data_line=keys.get(column, keys.get(name)),
                         class_="other" if kind == "flags" and text(value) != text(values[0]) else None)
                 for column, value in zip(frame.columns, values, strict=True))
        rows.append(element("tr", head(name, keys, "row") + "".join(cells)))
    body = "\n".join(rows)
    return (f'<div class="scroll" tabindex="0"><table class="{kind}">\n<thead><tr><td></td>{heads}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>") if rows else ""


def head(name: str, keys: Mapping[str, int], scope: str) -> str:
    """The head of a row or column; a line's has its legend key."""
    mark = key(keys[name]) + " " if name in keys else ""
    return element("th", mark + text(name), scope=scope, title=name, data_line=keys.get(name))


def text(value: Any) -> str:
    """A value as HTML; nan is empty."""
    return "" if isinstance(value, float) and math.isnan(value) else html.escape(str(value))


def key(place: int) -> str:
    """A line's legend key: its colour and dash."""
    return element("i", "", class_=f"key {dash(place)}", style=f"--key:var({color(place)})")


def samples_html(samples: Mapping[str, Sequence[Mapping[str, str]]], keys: Mapping[str, int]) -> str:
    """The lines' texts side by side under each prompt."""
    longest = max(map(len, samples.values()), default=0)
    rows = [[(name, texts[place]) for name, texts in samples.items() if place < len(texts)] for place in range(longest)]
    parts = []
    for prompt, group in groupby(rows, key=lambda row: row[0][1]["prompt"]):
        parts.append(element("h3", f"“{text(prompt)}”" if prompt else "From nothing"))
        for row in group:
            cards = "".join(card(name, sample, keys[name]) for name, sample in row)
            parts.append(element("div", cards, class_="cards", tabindex=0))
    return "\n".join(parts)


def card(name: str, sample: Mapping[str, str], place: int) -> str:
    """A line's text with its prompt in bold."""
    prompt = sample["prompt"] if sample["text"].startswith(sample["prompt"]) else ""
    written = element("b", text(prompt)) + text(sample["text"].removeprefix(prompt))
    return element("article", element("h4", text(name)) + element("p", written),
                   class_="card", data_line=place, style=f"--key:var({color(place)})")
