"""The report on an ablation.

    experiments/results/<name>/
        report.md   findings, sizes and runs               table.csv   the table in full precision
        forest.png  the differences with their intervals   logs/       the output of each process
"""

import math
import shlex
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.plan import TOLERANCE
from experiments.ablating.results import BETTER, NOISE, UNTOLD, WORSE, result_table
from experiments.ablating.runner import VariantOutcome
from experiments.ablating.variants import BASE, spell
from experiments.common.axes import label
from experiments.common.intervals import LEVEL
from experiments.common.reports import bullets, cell, csv_text, fenced, markdown_table, plain, write_picture
from run_store.atomic_files import write_text
from run_store.listing import shown

MATCHED = {"params": "parameters", "flops": "FLOPs", "seconds": "seconds of training"}
BY = {"width": "by width", "depth": "by depth", "mlp": "by the MLP's width", "steps": "by the number of steps"}
SECONDS = ("Seconds are those of training steps as measured beforehand with nothing else running; evaluations come on "
           "top, and runs side by side slow each other down.")
COLOURS = {BETTER: "#1b7f5c", WORSE: "#c0392b", NOISE: "#6b7577"}
OTHER = "#34495e"
ROW_INCHES, LABEL_CHARACTERS = 0.52, 34
BELOW = 0.22  # of a row: how far below its mean the seeds are drawn


def write_report(options: AblationOptions, outcomes: Sequence[VariantOutcome], command: Sequence[str]) -> str:
    """Write the results of an ablation into its folder, over older ones, and return what to print."""
    table = result_table(outcomes)
    findings = [*_unfinished(outcomes), *_findings(table)]
    write_text(options.folder / "table.csv", csv_text(table, index=False))
    picture = options.folder / "forest.png"
    picture.unlink(missing_ok=True)
    if table.difference.notna().any():
        seeds = max(len(outcome.values) for outcome in outcomes)
        title = f"{options.name}: {seeds} seeds, thick bars 95 % intervals, thin ones 95 % for all of them together"
        values = {outcome.planned.variant.label: outcome.values for outcome in outcomes}
        write_picture(picture, draw_forest(table, values, title))
    page = [f"# {options.name}", fenced(f"python experiments/ablate.py {shlex.join(command)}"),
            bullets(map(plain, findings)),
            *(["![differences to the base](forest.png)"] if picture.exists() else []),
            *_sections(options, outcomes, table)]
    write_text(options.folder / "report.md", "\n\n".join(page) + "\n")
    return "\n".join([*findings, f"the report: {shown(options.folder / 'report.md')}"])


# ---- findings ----


def _unfinished(outcomes: Sequence[VariantOutcome]) -> list[str]:
    missing = sum(outcome.missing for outcome in outcomes)
    if not missing:
        return []
    return [f"Unfinished: {missing} {'run is' if missing == 1 else 'runs are'} still to be trained. What stands here "
            "may change, and its p values do not allow for having been looked at early."]


def _findings(table: pd.DataFrame) -> list[str]:
    """The variants that are better or worse than the base, those inside the noise, and those that failed."""
    others, base = table[table.variant != BASE], table[table.variant == BASE].iloc[0]
    said = {BETTER: "better than the base", WORSE: "worse than the base",
            UNTOLD: "not told from the base, as an upper bound lies above a loss"}
    sentences = [f"{row.variant} is {words}: {row.difference:+.4f} bits per byte "
                 f"({row.difference_low:+.4f} to {row.difference_high:+.4f}), corrected p {row.p_holm:.2g}."
                 + f" Its loss is {row.loss}." * bool(row.loss)
                 for found, words in said.items() for row in others[others.verdict == found].itertuples()]
    noise = others[others.verdict == NOISE]
    if len(noise):
        names = ", ".join(f"{row.variant} ({row.difference:+.4f}, corrected p {row.p_holm:.2g})"
                          for row in noise.itertuples())
        smallest = ((others.wide_high - others.wide_low) / 2).median()
        sentences += [f"Inside the noise, and so neither better nor worse as far as these runs can tell: {names}.",
                      f"To be told from noise a difference had to be about {smallest:.4f} bits per byte (median of "
                      "the variants); more --seeds tell smaller ones."]
    rest = others[~others.verdict.isin({*said, NOISE})]
    sentences += [f"{row.variant}: {row.verdict}." for row in rest.itertuples()]
    return sentences + ([f"The base: {base.verdict}."] if math.isnan(base.bits_per_byte) else [])


# ---- the page ----


def _sections(options: AblationOptions, outcomes: Sequence[VariantOutcome], table: pd.DataFrame) -> list[str]:
    """The page below the findings."""
    tested = int(table.p.notna().sum())
    reading = ("Bits per byte of the whole validation part after the last step: mean over the seeds, and its interval "
               f"by Student's t. p: Welch's test against the base; corrected by Holm for {tested} "
               f"{'variant' if tested == 1 else 'variants'}: were none of them different, at least one would be called "
               f"better or worse with a chance of {LEVEL:.0%}, not more.")
    sweep = ["## The sweep", *_sweep(options, outcomes)] if options.sweep else []
    runs = bullets(f"{plain(outcome.planned.variant.label)}: "
                   f"{', '.join(f'`{name}`' for name in outcome.runs) or 'none'}" for outcome in outcomes)
    return ["## The variants, best first", _printed(table), reading, "## How it was done",
            bullets(_method(options, outcomes)), *sweep, "## The runs", runs,
            f"All their curves: `python experiments/compare.py '{options.name}-*'`."]


def _printed(table: pd.DataFrame) -> str:
    """The table with rounded figures, without empty columns."""
    rows = [{
        "variant": row.variant, "bits per byte": cell(".4f", row.bits_per_byte),
        "95 % interval": cell(".4f", row.low, row.high), "less the base's": cell("+.4f", row.difference),
        "its 95 % interval": cell("+.4f", row.difference_low, row.difference_high), "p": cell(".2g", row.p),
        "corrected p": cell(".2g", row.p_holm), "verdict": row.verdict, "its loss": row.loss, "runs": str(row.runs),
        "parameters": f"{row.parameters:,}", "tokens": f"{row.tokens:,}", "FLOPs": cell(".3g", row.flops),
        "seconds": cell(".1f", row.seconds), "match": cell("+.2%", row.match - 1), "sized by": row.sized_by,
        "chosen": getattr(row, "chosen", "")} for row in table.itertuples()]
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    return markdown_table({name: row[name] for name in used} for row in rows)


def _method(options: AblationOptions, outcomes: Sequence[VariantOutcome]) -> list[str]:
    """How the variants were matched, and where they differ nevertheless."""
    base, seeds = outcomes[0].planned, outcomes[0].seeds
    said = [f"Seeds {seeds[0]} to {seeds[-1]} of each variant; a seed gives all of one text and context the same rows "
            "in the same order." if seeds else "The base could not be trained.",
            f"The base: {base.parameters:,} parameters, {base.tokens:,} tokens."]
    if any(flag.startswith("data.") for outcome in outcomes for flag in outcome.planned.variant.flags):
        said.append("Variants that change the text may be measured on other texts, too: --data.val-name gives all the "
                    "same one.")
    if options.match == "none":
        return [*said, "Variants are as their flags make them, trained on as many tokens as the base."]
    far = ", ".join(f"{plain(one.variant.label)} ({one.match - 1:+.1%}, the nearest there is)"
                    for one in (outcome.planned for outcome in outcomes) if abs(one.match - 1) > TOLERANCE)
    said.append(f"Variants have as many {MATCHED[options.match]} as the base, {BY[options.settled_match_by]}, within "
                f"{TOLERANCE:.0%}{f', but for: {far}' if far else ''}.")
    tokens = {outcome.planned.tokens for outcome in outcomes}
    said.append("All are trained on the same number of tokens." if len(tokens) == 1 else
                f"They are trained on {min(tokens):,} to {max(tokens):,} tokens.")
    return [*said, SECONDS] if options.match == "seconds" else said


def _sweep(options: AblationOptions, outcomes: Sequence[VariantOutcome]) -> list[str]:
    """Bits per byte of each variant at each value on the first seed, and remarks on the choice."""
    rows, edges = [], []
    for outcome in outcomes:
        label, chosen = outcome.planned.variant.label, spell(outcome.chosen)
        rows.append({"variant": label} | {
            value: "failed" if math.isnan(found) else f"**{found:.4f}**" if value == chosen else f"{found:.4f}"
            for value, found in outcome.swept.items()})
        if outcome.chosen is not None and chosen in _ends(outcome.swept):
            edges.append(label)
    flag, seed = options.sweep.partition("=")[0], outcomes[0].planned.cfg.train.seed
    said = [markdown_table(rows), f"{flag}: bits per byte with seed {seed}, by which each variant's value (bold) was "
            "chosen. That seed counts for nothing else, for the best of several is better than it will be again."]
    if edges:
        said.append(f"At the end of the range, so that a value beyond it may be better still: {', '.join(edges)}.")
    return said


def _ends(swept: dict[str, float]) -> set[str]:
    """The smallest and the largest of the values, if they are numbers."""
    try:
        ranked = sorted(swept, key=float)
    except ValueError:
        return set()
    return {ranked[0], ranked[-1]}


# ---- the picture ----


def draw_forest(table: pd.DataFrame, values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Bits per byte minus the base's: dots are seeds, thick bars 95 %, thin ones 95 % for all of them together.

    `table` is a result_table, `values` has the runs of each variant. The best is on top; those that failed or are not
    compared are left out.
    """
    rows = table[table.difference.notna() | (table.variant == BASE) & table.bits_per_byte.notna()]
    rows = rows.reset_index(drop=True)
    base = float(rows.loc[rows.variant == BASE, "bits_per_byte"].iloc[0])
    figure = Figure(figsize=(9.5, 1.7 + ROW_INCHES * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=OTHER, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for place, row in rows.iterrows():
        _draw_row(axes, place, row, np.asarray(values[row.variant]) - base)
    axes.set_yticks(range(len(rows)), ["\n".join(textwrap.wrap(name, LABEL_CHARACTERS))
                                        for name in map(label, rows.variant)])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("bits per byte less the base's; further left is better")
    axes.set_title(label(title), loc="left", fontsize="medium", pad=12)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _draw_row(axes: Axes, place: int, row: pd.Series, seeds: np.ndarray) -> None:
    """The seeds of a variant, its mean and intervals, and on the right its verdict."""
    colour, mean = COLOURS.get(row.verdict, OTHER), row.difference
    said = f"{row.difference:+.4f}  {row.verdict}" + f", {row.loss}" * bool(row.loss)
    low, high = row.difference_low, row.difference_high
    if row.variant == BASE:
        mean, said = 0.0, f"{row.bits_per_byte:.4f}"
        low, high = row.low - row.bits_per_byte, row.high - row.bits_per_byte
    else:
        axes.plot([row.wide_low, row.wide_high], [place, place], color=colour, linewidth=1.2, zorder=2)
    axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=2)
    axes.plot(seeds, np.full(len(seeds), place + BELOW), "o", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
    axes.plot(mean, place, "D", color=colour, markersize=7, markeredgecolor="white", zorder=4)
    axes.annotate(label(said), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small",
                  color=colour)
