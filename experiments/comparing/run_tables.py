"""The figures of each run: a row for each run in full precision, a row for each line formatted."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from configuration.command_line import spell_bytes
from experiments.common.figures import num_parameters
from experiments.common.intervals import mean_interval
from experiments.comparing.differences import PER_TOKEN, tokenizers
from experiments.comparing.grades import grade_run
from experiments.comparing.lines import Line, try_each
from experiments.comparing.measures import HeldOut, Measures
from experiments.comparing.sources import CurveSource
from runs import Run

UNITS = ("", "k", "M", "G", "T", "P", "E")
whole, loss, percent, digits = "{:,.0f}".format, "{:.4f}".format, "{:.1%}".format, "{:.4g}".format


def short(value: float) -> str:
    """With a metric prefix: 301G."""
    power = 0 if value < 1000 else min(len(UNITS) - 1, int(math.log10(value)) // 3)
    return f"{value / 1000**power:.3g}{UNITS[power]}"


HEADINGS: dict[str, tuple[str, Callable[[float], str]]] = {  # column -> its heading, its format
    "parameters": ("parameters", whole),
    "steps": ("steps", whole),
    "tokens": ("tokens", whole),
    "flops": ("FLOPs", short),
    "seconds": ("seconds", whole),
    "val_loss": ("final val loss", loss),
    "best_val_loss": ("best val loss", loss),
    "perplexity": ("perplexity", digits),
    "bits_per_byte": ("final bits/byte", loss),
    "best_bits_per_byte": ("best bits/byte", loss),
    "bits_over_floor": ("bits/byte over the floor", loss),
    "text_bits_per_byte": ("bits/byte, same text", loss),
    "top_1": ("top-1, same text", percent),
    "top_5": ("top-5, same text", percent),
    "stories": ("whole stories", percent),
    "tokens_per_second": ("tokens/s", whole),
    "peak_bytes": ("peak memory", spell_bytes),
}
PLAIN = ("parameters", "steps", "tokens", "flops", "seconds", "tokens_per_second", "peak_bytes")  # no interval


def run_table(
    lines: Sequence[Line], measured: Mapping[CurveSource, Measures], text: HeldOut | None,
    stories: Mapping[CurveSource, float] | None = None,
) -> pd.DataFrame:
    """A row for each run, under its name: its line, and the columns of HEADINGS; nan = unknown.

    Losses are the final and the lowest of the log; bits_over_floor is final. text_ and top_ are of the best checkpoint
    on the same text (`measured`), `stories` is the share of whole ones.
    """
    rows = {source.name: {"line": line.name} | figures(source, measured.get(source), text, (stories or {}).get(source))
            for line in lines for source in line.members}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["line", *HEADINGS])


def figures(
    source: CurveSource, measures: Measures | None, text: HeldOut | None, stories: float | None,
) -> dict[str, Any]:
    """A run's row, without unknown figures."""
    found = of_log(source.table)
    if source.run:
        found |= of_run(source.run, found.get("bits_per_byte"))
    if measures:
        found |= {"text_bits_per_byte": measures.bits_per_byte(text)}
        found |= {f"top_{k}": correct for k, correct in measures.accuracy.items()}
    return found if stories is None else found | {"stories": stories}


def of_log(table: pd.DataFrame) -> dict[str, float]:
    """The figures that a log gives."""
    known = [name for name in table if pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any()]
    values = {name: table[name].dropna() for name in known}
    found = {"steps": float(values["step"].max())}
    found |= {name: float(values[name].max()) for name in ("tokens", "flops", "seconds") if name in values}
    for name in ("val_loss", "bits_per_byte"):
        if name in values:
            found |= {name: float(values[name].iloc[-1]), f"best_{name}": float(values[name].min())}
    if "val_loss" in found:
        found["perplexity"] = math.exp(min(found["val_loss"], 700))
    if "tokens_per_second" in values:
        found["tokens_per_second"] = float(values["tokens_per_second"].median())
    return found


def of_run(run: Run, bits_per_byte: float | None) -> dict[str, float]:
    """The figures that the rest of its folder gives."""
    found, floor = {"parameters": num_parameters(run.config.model)}, run.data["floor_bits_per_byte"]
    if floor is not None and bits_per_byte is not None:
        found["bits_over_floor"] = bits_per_byte - floor
    memory = run.path / "memory.json"
    if memory.exists() and (peak := json.loads(memory.read_text(encoding="utf-8"))["peak_bytes"]):
        found["peak_bytes"] = peak
    return found


def line_table(runs: pd.DataFrame, lines: Sequence[Line]) -> pd.DataFrame:
    """`run_table` formatted: a row for each line, the mean over its runs ± half its 95 % interval.

    Columns that no line has are left out, and losses per token if tokenizers differ.
    """
    hidden = {name for name in HEADINGS if len(tokenizers(lines)) > 1 and name.removeprefix("best_") in PER_TOKEN}
    kept = [name for name in HEADINGS if name not in hidden and runs[name].notna().any()]
    rows = {}
    for line in lines:
        mine = runs[runs["line"] == line.name]
        seeds = {"seeds": str(len(mine))} if len(runs) > len(lines) else {}
        rows[line.name] = seeds | {HEADINGS[name][0]: cell(mine[name]) for name in kept}
    return pd.DataFrame.from_dict(rows, orient="index")


def cell(values: pd.Series) -> str:
    """The formatted mean of a column over some runs; "" if one of them lacks it."""
    if values.isna().any():
        return ""
    found, write = mean_interval(values.astype(float)), HEADINGS[values.name][1]
    has_interval = values.name not in PLAIN and found.std > 0  # nan of one run
    return f"{write(found.mean)} ± {write(found.high - found.mean)}" if has_interval else write(found.mean)


def graded(
    lines: Sequence[Line], num_stories: int = 0, *, device: str = "auto",
) -> tuple[dict[CurveSource, float], list[str]]:
    """The share of whole, consistent stories of each run of tales; and a sentence on each that cannot write any.

    The best checkpoint writes `num_stories`; with 0 the grades of the end of its training count.
    """
    return try_each(lines, lambda run: _share(run, num_stories, device), "The stories of {} are not graded: {}.")


def _share(run: Run, num_stories: int, device: str) -> float | None:
    path = run.path / "grades.json"
    if num_stories:
        grades = grade_run(run, num_stories=num_stories, device=device)
        return grades and grades.share
    if not path.exists():
        return None
    passed = [grade["passed"] for grade in json.loads(path.read_text(encoding="utf-8"))]
    return sum(passed) / len(passed)
