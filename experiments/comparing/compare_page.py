"""A comparison as one HTML page that needs no network: curves to zoom and hide, tables, texts side by side.

page.html is its Jinja template, page.css its style, page.js draws the curves. Names and texts are not trusted: they are
escaped, and the page's policy allows no script except Plotly and page.js, and no request.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from config import SampleConfig
from configuration.command_line import warn
from experiments.comparing.curve_pictures import FLOORED, default_axis, default_column
from experiments.comparing.differences import PER_TOKEN, tokenizers
from experiments.comparing.lines import AXES, COLUMNS, Line
from inference import load_objective, prompts_or_opening
from run_store.atomic_files import write_text
from tokenizer import Tokenizer
from tools import pick_device
from training.report import write_samples

LOGARITHMIC = {"bits_per_byte", "bits_over_floor", "train_bits_per_byte", "val_loss", "train_loss", "ema_val_loss",
               "perplexity"}
MAX_ROWS = 4000  # of a curve; neighbours in a longer log are averaged
DIGITS = 8
NUM_COLORS, DASHES = 7, ("solid", "dash", "dot")  # dashed when all colours are used
TOKENS_PER_BYTE = 0.25  # of a run whose own is not known
FEW = 6  # lines; up to this number each is a column of the table of runs
HERE = Path(__file__).resolve().parent
Sample = Mapping[str, str]  # prompt, text


def write_page(
    path: Path, *, title: str, lines: Sequence[Line], table: pd.DataFrame, differences: pd.DataFrame,
    remarks: Sequence[str], samples: Mapping[str, Sequence[Sample]], floor: float | None,
    column: str | None = None, axis: str | None = None,
) -> None:
    """Write the page, whole or not at all.

    `table` has a row of formatted strings for each line, `differences` a row for each flag and a column for each line;
    `remarks` are sentences; `samples` are texts by line, of the same prompts in each; `floor` is the text's entropy in
    bits per byte, None = unknown; `column` and `axis` are drawn first. Raises ValueError if no line has a curve.
    """
    data = curves(lines, floor, column, axis)
    files = {part: (HERE / f"page.{part}").read_text(encoding="utf-8") for part in ("html", "css", "js")}
    plotly, num_runs = get_plotlyjs(), sum(len(line.members) for line in lines)
    count = f"{len(lines)} curve{'s' * (len(lines) != 1)} of {num_runs} run{'s' * (num_runs != 1)}"
    page = Environment(autoescape=True, trim_blocks=True).from_string(files["html"]).render(
        title=title, style=files["css"], script=files["js"], plotly=plotly, policy=policy(plotly, files["js"]),
        count=count, remarks=remarks, data=data,
        styles={line["name"]: line | {"place": place} for place, line in enumerate(data["lines"])},
        runs=table.T if len(table) <= FEW else table, differences=differences.fillna(""), samples=by_prompt(samples))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def policy(*scripts: str) -> str:
    """A content security policy that allows these scripts and no requests."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; "
            f"base-uri 'none'; script-src {allowed}")


# ---- curves ----


def curves(lines: Sequence[Line], floor: float | None, column: str | None, axis: str | None) -> dict[str, Any]:
    """The data of page.js: the lines' values, and the columns and axes that any line has."""
    drawn = [{"name": line.name, "count": len(line.members), "color": f"--c{place % NUM_COLORS}",
              "dash": DASHES[place // NUM_COLORS % len(DASHES)], "mean": listed(line.table), "low": listed(line.low),
              "high": listed(line.high)} for place, line in enumerate(lines)]
    column, axis = column or default_column(lines), axis or default_axis(lines)
    found = {name for line in drawn for name in line["mean"]}
    axes = [name for name in AXES if name in found]
    names = [*filter(found.__contains__, COLUMNS), *sorted(found - COLUMNS.keys() - AXES.keys())]
    if not axes or not names:
        raise ValueError("none of the runs has a curve: train one first")
    barred = PER_TOKEN if len(tokenizers(lines)) > 1 else ()
    columns = [{"name": name, "label": COLUMNS.get(name, name), "log": name in LOGARITHMIC, "barred": name in barred,
                "floored": name in FLOORED and floor is not None} for name in names]
    return {"lines": drawn, "floor": floor, "columns": columns, "axes": [{"name": x, "label": AXES[x]} for x in axes],
            "column": names.index(column) if column in names else 0, "axis": axes.index(axis) if axis in axes else 0}


def listed(frame: pd.DataFrame | None) -> dict[str, list[float | None]] | None:
    """The numeric columns with at most MAX_ROWS values; None = not measured, or not finite, or no frame."""
    if frame is None:
        return None
    numbers = frame.select_dtypes("number").astype(float).replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")
    if len(numbers) > MAX_ROWS:
        numbers = numbers.groupby(np.arange(len(numbers)) * MAX_ROWS // len(numbers)).mean()
    return {str(name): [None if math.isnan(x) else float(f"{x:.{DIGITS}g}") for x in column]
            for name, column in numbers.items()}


# ---- texts ----


def by_prompt(samples: Mapping[str, Sequence[Sample]]) -> list[tuple[str, list[list[tuple[str, Sample]]]]]:
    """(prompt, rows) for each prompt; a row has the name and the text of each line."""
    rows = [list(zip(samples, texts, strict=True)) for texts in zip(*samples.values(), strict=True)]
    return [(prompt, list(group)) for prompt, group in groupby(rows, key=lambda row: row[0][1]["prompt"])]


def same_prompts(
    lines: Sequence[Line], prompts: Sequence[str] = (), *, num: int = 1, num_bytes: int = 600, seed: int = 0,
    device: str = "auto",
) -> dict[str, list[dict[str, str]]]:
    """`num` texts by the first member of each line after each prompt, about `num_bytes` long, with the same draws.

    The default prompts are those that the runs continued during training, as far as every tokenizer can encode them;
    if there are none, texts begin from nothing. Foreign logs have no texts, and neither has a run whose model cannot
    be loaded or has diverged: a warning names it. Raises ValueError for a given prompt that a tokenizer cannot encode.
    """
    runs = {line.name: line.members[0].run for line in lines if line.members[0].run is not None}
    tokenizers = {name: run.tokenizer() for name, run in runs.items()}
    for prompt in prompts:
        if name := _at_a_loss(prompt, tokenizers):
            raise ValueError(f"prompts={prompt!r} has characters that the tokenizer of {name} does not know: "
                             "use others, or leave the run out")
    own = dict.fromkeys(prompt for run in runs.values()
                        for prompt in prompts_or_opening(run.config.sample, run.config.data.name))
    prompts = prompts or [prompt for prompt in own if not _at_a_loss(prompt, tokenizers)] or [""]
    repeated, texts = [prompt for prompt in prompts for _ in range(num)], {}
    for name, run in runs.items():
        tokens = max(1, round(num_bytes * (run.data["val_tokens_per_byte"] or TOKENS_PER_BYTE)))
        cfg = SampleConfig(max_new_tokens=tokens, temperature=0.8, seed=seed, denoise=run.config.sample.denoise)
        try:
            objective = load_objective(run, "best", pick_device(device))
            texts[name] = write_samples(objective, tokenizers[name], repeated, cfg,
                                        are_sources=run.config.data.is_pairs)
        except ValueError as error:
            warn(f"{name} writes no texts: {error}")
    return texts


def _at_a_loss(prompt: str, tokenizers: dict[str, Tokenizer]) -> str | None:
    """The first run that has no tokens for a prompt; None = all have."""
    for name, tokenizer in tokenizers.items():
        try:
            tokenizer.encode(prompt)
        except ValueError:
            return name
    return None
