"""The figures of each run: a row for each run in full precision, a row for each line formatted."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import pandas as pd
from matplotlib.ticker import EngFormatter

from configuration.command_line import spell_bytes
from configuration.objectives import is_loss
from configuration.reading import read_as
from experiments.common.figures import last_value, num_active_parameters, num_parameters
from experiments.common.intervals import mean_interval
from experiments.comparing.differences import PER_TOKEN, tokenizers
from experiments.comparing.grades import grade_run
from experiments.comparing.lines import Line, try_each
from experiments.comparing.measures import HeldOut, Measures
from experiments.comparing.sources import CurveSource
from run_store.facts import GRADES, exact_targets, peak_bytes
from runs import Run

whole, loss, percent, digits = "{:,.0f}".format, "{:.4f}".format, "{:.1%}".format, "{:.4g}".format

HEADINGS: dict[str, tuple[str, Callable[[float], str]]] = {  # column -> its heading, its format
    "parameters": ("parameters", whole),
    "active_parameters": ("active for a token", whole),
    "steps": ("steps", whole),
    "tokens": ("tokens", whole),
    "flops": ("FLOPs", EngFormatter(places=1, sep="")),
    "seconds": ("seconds", whole),
    "val_loss": ("final val loss", loss),
    "best_val_loss": ("best val loss", loss),
    "perplexity": ("perplexity", digits),
    "bits_per_byte": ("final bits/byte", loss),
    "best_bits_per_byte": ("best bits/byte", loss),
    "accuracy": ("final accuracy", percent),
    "bits_over_floor": ("bits/byte over the floor", loss),
    "text_bits_per_byte": ("bits/byte, same text", loss),
    "top_1": ("top-1, same text", percent),
    "top_5": ("top-5, same text", percent),
    "stories": ("whole stories", percent),
    "exact": ("exact targets", percent),
    "tokens_per_second": ("tokens/s", whole),
    "peak_bytes": ("peak memory", spell_bytes),
}
PLAIN = ("parameters", "active_parameters", "steps", "tokens", "flops", "seconds", "tokens_per_second",
         "peak_bytes")  # no interval


def run_table(
    lines: Sequence[Line], measured: Mapping[CurveSource, Measures], text: HeldOut | None,
    stories: Mapping[CurveSource, float] | None = None,
) -> pd.DataFrame:
    """A row for each run, under its name: its line, and the columns of HEADINGS; nan = unknown.

    Losses are the final and the lowest of the log; bits_over_floor is final. text_ and top_ are of the best checkpoint
    on the same text (`measured`), `stories` is the share of whole ones.
    """
    rows = {}
    for line in lines:
        for source in line.members:
            row = {"line": line.name} | of_log(source.table)
            if source.run:
                row |= of_run(source.run, row.get("bits_per_byte"))
            if found := measured.get(source):
                row["text_bits_per_byte"] = found.bits_per_byte(text)
                row |= {f"top_{k}": correct for k, correct in found.accuracy.items()}
            rows[source.name] = row | {"stories": (stories or {}).get(source, math.nan)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["line", *HEADINGS])


def of_log(table: pd.DataFrame) -> dict[str, float]:
    """The figures that a log gives."""
    log = table.select_dtypes("number").dropna(axis="columns", how="all")
    found = {"steps": float(log["step"].max())}
    found |= {name: float(log[name].max()) for name in ("tokens", "flops", "seconds") if name in log}
    for name in ("val_loss", "bits_per_byte"):
        if name in log:
            found |= {name: last_value(log, name), f"best_{name}": float(log[name].min())}
    if "val_loss" in found:
        found["perplexity"] = math.exp(min(found["val_loss"], 700))
    if "tokens_per_second" in log:
        found["tokens_per_second"] = float(log["tokens_per_second"].median())
    return found


def of_run(run: Run, bits_per_byte: float | None) -> dict[str, float]:
    """The figures that the rest of its folder gives."""
    model = run.config.model
    floor = None if run.config.facts.of else run.data["floor_bits_per_byte"]
    found = {"parameters": num_parameters(model), "active_parameters": num_active_parameters(model)}
    data = run.config.data
    if data.is_probe or data.is_pairs:  # of answers; of tokens of a text it depends on the tokenizer
        found["accuracy"] = last_value(run.log(), "accuracy")
    if floor is not None and bits_per_byte is not None:
        found["bits_over_floor"] = bits_per_byte - floor
    if (exact := exact_targets(run.path)) is not None:
        found["exact"] = exact
    if peak := peak_bytes(run.path):
        found["peak_bytes"] = peak
    return found


def line_table(runs: pd.DataFrame, lines: Sequence[Line]) -> pd.DataFrame:
    """`run_table` formatted: a row for each line, the mean over its runs ± half its 95 % interval.

    Columns that no line has are left out, and losses per token if tokenizers differ; also the parameters that a token
    uses, if these are all.
    """
    hidden = {name for name in HEADINGS if len(tokenizers(lines)) > 1 and name.removeprefix("best_") in PER_TOKEN}
    if runs["active_parameters"].equals(runs["parameters"]):
        hidden.add("active_parameters")
    kept = [name for name in HEADINGS if name not in hidden and runs[name].notna().any()]
    rows = {}
    for line in lines:
        mine = runs[runs["line"] == line.name]
        seeds = {"seeds": str(len(mine))} if len(runs) > len(lines) else {}
        signs = {name: line.facts.sign for name in filter(is_loss, HEADINGS)}
        rows[line.name] = seeds | {HEADINGS[name][0]: signs.get(name, "") + cell(mine[name]) for name in kept}
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
    def share(run: Run) -> float | None:
        if num_stories:
            grades = grade_run(run, num_stories=num_stories, device=device)
            return grades and grades.share
        path = run.path / "grades.json"
        return mean(story["passed"] for story in read_as(GRADES, path)) if path.exists() else None

    return try_each(lines, share, "The stories of {} are not graded: {}.")
