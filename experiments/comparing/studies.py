"""Two scaling studies compared: whether an idea's gain holds, grows or fades with the size of the model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from rich.console import Console
from scipy import stats

import runs
from configuration.command_line import print_line
from configuration.reading import read_json
from experiments.common.axes import label, logarithmic
from experiments.common.intervals import LEVEL, Difference, Interval, mean_interval
from experiments.common.reports import csv_text, write_picture
from experiments.comparing.compare_options import CompareOptions
from run_store.atomic_files import write_text
from run_store.listing import RESULTS, is_run, shown

POINTS, FIT = "points.csv", "fit.json"  # of the results of experiments/scaling.py
PAIRED_BY = ["size", "for_tokens", "seed"]
KEPT = ("runs", "png", "csv", "json")  # options that say something of studies


class Trend(NamedTuple):
    """How the gain changes with each doubling of the parameters, or of the tokens."""

    what: str
    slope: Difference


@dataclass(frozen=True)
class Gains:
    """The gain of an idea over a base, pair by pair of runs of one size, number of tokens and seed."""

    base: str
    idea: str
    entropy: float | None  # of the text; gains are of the loss above it
    pairs: pd.DataFrame  # PAIRED_BY, parameters (of the base), base, idea (bits per byte), gain
    left_out: int  # runs without a partner
    sizes: dict[str, Interval]  # the gain of each size, the smallest first
    p: float  # of the sign test over the pairs
    trends: list[Trend]  # [] = too few pairs


def find_studies(words: Sequence[str]) -> list[Path]:
    """The folders of two studies, if the words name such; [] if none does. Raises ValueError if only some do."""
    found = [study_folder(word) for word in words]
    if not any(found):
        return []
    if other := next((word for word, folder in zip(words, found, strict=True) if folder is None), None):
        raise ValueError(f"{other} is not a scaling study, as the others are: name two studies, or runs alone")
    if len(found) != 2:
        raise ValueError(f"{len(found)} scaling studies are named: give two, first the base")
    return found


def study_folder(word: str) -> Path | None:
    """A folder with the results of experiments/scaling.py, by its path or its name; None = it is none."""
    places = [Path(word).expanduser(), *([] if is_run(runs.MODELS / word) else [RESULTS / word])]
    return next((place for place in places if (place / POINTS).is_file() and (place / FIT).is_file()), None)


def compare(console: Console, options: CompareOptions, base: Path, idea: Path) -> None:
    """Print what two studies say of an idea, and write the picture and the files that the options name."""
    require_plain(options)
    found = compare_studies(base, idea)
    print_line(console, f"{size_rows(found).to_string()}\n")
    for sentence in sentences(found):
        print_line(console, f"- {sentence}")
    options.png.parent.mkdir(parents=True, exist_ok=True)
    write_picture(options.png, draw_gains(found))
    if options.csv:
        write_text(options.csv, csv_text(found.pairs, index=False))
    if options.json:
        write_text(options.json, json.dumps(as_json(found), indent=1) + "\n")
    for path in filter(None, (options.png, options.csv, options.json)):
        print_line(console, f"wrote {shown(path.resolve())}")


def require_plain(options: CompareOptions) -> None:
    """Raise ValueError for an option that says nothing of studies."""
    for name, value in vars(CompareOptions()).items():
        if name not in KEPT and getattr(options, name) != value:
            raise ValueError(f"{name}={getattr(options, name)} would change nothing: of scaling studies there are "
                             "--png, --csv and --json")


# ---- gains ----


def compare_studies(base: Path, idea: Path) -> Gains:
    """Pair the runs of two studies. Raises ValueError if their texts differ, or if no runs have a size in common."""
    texts, tables = zip(*(read_study(folder) for folder in (base, idea)), strict=True)
    if texts[0] != texts[1]:
        raise ValueError(f"{idea.name} has learned from or was measured on another text than {base.name}: their losses "
                         "cannot be compared")
    pairs = tables[0].merge(tables[1][[*PAIRED_BY, "bits_per_byte"]], on=PAIRED_BY, suffixes=("", "_idea"))
    if pairs.empty:
        raise ValueError(f"{base.name} and {idea.name} have no size, number of tokens and seed in common")
    entropy = texts[0]["floor_bits_per_byte"]
    pairs = pairs.rename(columns={"bits_per_byte": "base", "bits_per_byte_idea": "idea"}).sort_values(
        ["parameters", "for_tokens", "seed"])[[*PAIRED_BY, "parameters", "tokens", "base", "idea"]]
    pairs["gain"] = 1 - (pairs.idea - (entropy or 0.0)) / (pairs.base - (entropy or 0.0))
    sizes = {name: mean_interval(mine.gain) for name, mine in pairs.groupby("size", sort=False)}
    signs = np.sign(pairs.gain[pairs.gain != 0])
    p = float(stats.binomtest(int((signs > 0).sum()), len(signs)).pvalue) if len(signs) else 1.0
    return Gains(base.name, idea.name, entropy, pairs, sum(map(len, tables)) - 2 * len(pairs), sizes, p, trends(pairs))


def read_study(folder: Path) -> tuple[dict, pd.DataFrame]:
    """What identifies the text of a study, and its runs. Raises ValueError if a file is damaged."""
    try:
        return read_json(folder / FIT)["text"], pd.read_csv(folder / POINTS)
    except (KeyError, TypeError, pd.errors.ParserError) as error:
        raise ValueError(f"{folder} is not a whole scaling study ({error}): repeat its command") from None


def trends(pairs: pd.DataFrame) -> list[Trend]:
    """Least squares of the gain against the doublings of parameters and tokens, as far as both vary."""
    columns = {what: np.log2(pairs[name].to_numpy(float)) for what, name, key in (
        ("parameters", "parameters", "size"), ("tokens", "tokens", "for_tokens")) if pairs[key].nunique() > 1}
    spare = len(pairs) - 1 - len(columns)
    if not columns or spare < 1:
        return []
    matrix = np.stack([np.ones(len(pairs)), *columns.values()], axis=1)
    factors, *_ = np.linalg.lstsq(matrix, pairs.gain.to_numpy(), rcond=None)
    variance = np.sum((pairs.gain - matrix @ factors) ** 2) / spare
    errors = np.sqrt(variance * np.diag(np.linalg.inv(matrix.T @ matrix)))
    reach = stats.t.ppf(1 - LEVEL / 2, spare)
    return [Trend(what, Difference(float(slope), float(slope - reach * error), float(slope + reach * error),
                                   float(2 * stats.t.sf(abs(slope) / error, spare)) if error else float(slope == 0)))
            for what, slope, error in zip(columns, factors[1:], errors[1:], strict=True)]


# ---- words ----


def size_rows(found: Gains) -> pd.DataFrame:
    """A row for each size."""
    rows = []
    for name, one in found.sizes.items():
        mine = found.pairs[found.pairs["size"] == name]
        rows.append({"size": name, "parameters": f"{mine.parameters.iloc[0]:,}", found.base: f"{mine.base.mean():.4f}",
                     found.idea: f"{mine.idea.mean():.4f}", "gain": f"{one.mean:+.1%}",
                     "its 95 % interval": "" if np.isnan(one.low) else f"{one.low:+.1%} to {one.high:+.1%}",
                     "better": f"{(mine.gain > 0).sum()} of {len(mine)} pairs"})
    return pd.DataFrame(rows).set_index("size")


def sentences(found: Gains) -> list[str]:
    """Whether the gain holds, and whether it grows or fades."""
    sizes, pairs = list(found.sizes.values()), found.pairs
    better, sure = sum(one.mean > 0 for one in sizes), sum(one.low > 0 for one in sizes)
    of = (f"the loss above the entropy of the text, {found.entropy:.4f} bits per byte" if found.entropy
          else "the loss, whose entropy is not known")
    said = [f"{found.idea} is better than {found.base} at {better} of {len(sizes)} sizes, at {sure} of them with an "
            f"interval above zero, and in {(pairs.gain > 0).sum()} of {len(pairs)} pairs of runs (sign test: p = "
            f"{found.p:.2g}). A gain is a share of {of}."]
    said += [verdict(*trend) for trend in found.trends]
    if not found.trends:
        said.append("Whether the gain grows or fades cannot be told from so few pairs.")
    if len(pairs) > len(sizes):
        said.append("The interval of a size is over its pairs, and so holds what the number of tokens changes.")
    if found.left_out:
        said.append(f"{found.left_out} runs have no partner of their size, tokens and seed, and do not count.")
    return said


def as_json(found: Gains) -> dict[str, Any]:
    """All figures in full precision."""
    return {"base": found.base, "idea": found.idea, "entropy": found.entropy, "sign_test_p": found.p,
            "left_out": found.left_out, "sizes": {name: one._asdict() for name, one in found.sizes.items()},
            "trends": {what: slope._asdict() for what, slope in found.trends}}


def verdict(what: str, slope: Difference) -> str:
    """The trend in a sentence."""
    figures = (f"{100 * slope.mean:+.2f} percentage points with each doubling of the {what} "
               f"({100 * slope.low:+.2f} to {100 * slope.high:+.2f}, p = {slope.p:.2g})")
    if slope.p < LEVEL:
        return f"The gain {'grows' if slope.mean > 0 else 'fades'}: {figures}."
    return f"Whether the gain grows or fades with the {what} cannot be told from noise: {figures}."


def draw_gains(found: Gains) -> Figure:
    """The gain of each size with its interval, and of each pair as a dot."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    places = found.pairs.groupby("size", sort=False).parameters.first()
    axes.plot(found.pairs.parameters, found.pairs.gain, "o", color="#8a8f98", markersize=4, label="a pair of runs")
    ends = np.array([[one.mean - one.low, one.high - one.mean] for one in found.sizes.values()]).T
    axes.errorbar(places, [one.mean for one in found.sizes.values()], yerr=np.nan_to_num(ends), fmt="s-", capsize=4,
                  color="#22313f", label="mean of a size, 95 % interval")
    axes.axhline(0, color="black", linewidth=1)
    if len(places) > 1:
        logarithmic(axes.xaxis)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="parameters of the base, in matrices and the head",
             ylabel=f"gain, share of the loss{' above the entropy' if found.entropy else ''}")
    axes.set_title(label(f"{found.idea} against {found.base}"), fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
