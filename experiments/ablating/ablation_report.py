"""The report on an ablation.

    experiments/results/<name>/
        report.md   findings, sizes and runs               table.csv   the table in full precision
        forest.png  the differences with their intervals   logs/       the output of each process
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.forest import draw_forest
from experiments.ablating.results import BETTER, NOISE, WORSE, result_table
from experiments.ablating.sizing import TOLERANCE
from experiments.ablating.variant_runs import VariantOutcome
from experiments.ablating.variants import BASE, spell
from experiments.common.intervals import LEVEL
from experiments.common.reports import bullets, markdown_table, write_picture
from run_store.atomic_files import write_text
from training.report import shown

MATCHED = {"params": "parameters", "flops": "FLOPs", "seconds": "seconds of training"}
BY = {"width": "by width", "depth": "by depth", "mlp": "by the MLP's width", "steps": "by the number of steps"}
SECONDS = ("Seconds are those of training steps as measured beforehand with nothing else running; evaluations come on "
           "top, and runs side by side slow each other down.")


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """What was found and written; as a text, what to print at the end."""

    folder: Path
    table: pd.DataFrame  # a row for each variant, as in table.csv
    findings: tuple[str, ...]  # sentences

    def __str__(self) -> str:
        return "\n".join([*self.findings, f"the report: {shown(self.folder / 'report.md')}"])


def write_report(
    options: AblationOptions, outcomes: Sequence[VariantOutcome], command: Sequence[str],
) -> AblationReport:
    """Write the results of an ablation into its folder and replace older ones."""
    table = result_table(outcomes)
    findings = (*_unfinished(outcomes), *_findings(table))
    write_text(options.folder / "table.csv", table.to_csv(index=False))
    picture = options.folder / "forest.png"
    picture.unlink(missing_ok=True)
    if table.difference.notna().any():
        seeds = max(len(outcome.values) for outcome in outcomes)
        title = f"{options.name}: {seeds} seeds, thick bars 95 % intervals, thin ones 95 % for all of them together"
        values = {outcome.planned.variant.label: outcome.values for outcome in outcomes}
        write_picture(picture, draw_forest(table, values, title))
    page = [f"# {options.name}", f"```\npython experiments/ablate.py {shlex.join(command)}\n```", bullets(findings),
            *(["![differences to the base](forest.png)"] if picture.exists() else []),
            *_sections(options, outcomes, table)]
    write_text(options.folder / "report.md", "\n\n".join(page) + "\n")
    return AblationReport(folder=options.folder, table=table, findings=findings)


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
    sentences = [f"{row.variant} is {found} than the base: {row.difference:+.4f} bits per byte "
                 f"({row.difference_low:+.4f} to {row.difference_high:+.4f}), corrected p {row.p_holm:.2g}."
                 for found in (BETTER, WORSE) for row in others[others.verdict == found].itertuples()]
    noise = others[others.verdict == NOISE]
    if len(noise):
        names = ", ".join(f"{row.variant} ({row.difference:+.4f}, corrected p {row.p_holm:.2g})"
                          for row in noise.itertuples())
        smallest = ((others.wide_high - others.wide_low) / 2).median()
        sentences += [f"Inside the noise, and so neither better nor worse as far as these runs can tell: {names}.",
                      f"To be told from noise a difference had to be about {smallest:.4f} bits per byte (median of "
                      "the variants); more --seeds tell smaller ones."]
    rest = others[~others.verdict.isin({BETTER, WORSE, NOISE})]
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
    runs = bullets(f"{outcome.planned.variant.label}: {', '.join(f'`{name}`' for name in outcome.runs) or 'none'}"
                   for outcome in outcomes)
    return ["## The variants, best first", _printed(table), reading, "## How it was done",
            bullets(_method(options, outcomes)), *sweep, "## The runs", runs,
            f"All their curves: `python experiments/compare.py '{options.name}-*'`."]


def _printed(table: pd.DataFrame) -> str:
    """The table with rounded figures, without empty columns."""
    def number(value: float, form: str) -> str:
        return "" if math.isnan(value) else format(value, form)

    def interval(low: float, high: float, form: str) -> str:
        return "" if math.isnan(low) else f"{low:{form}} to {high:{form}}"

    rows = []
    for row in table.itertuples():
        rows.append({
            "variant": row.variant, "bits per byte": number(row.bits_per_byte, ".4f"),
            "95 % interval": interval(row.low, row.high, ".4f"), "less the base's": number(row.difference, "+.4f"),
            "its 95 % interval": interval(row.difference_low, row.difference_high, "+.4f"), "p": number(row.p, ".2g"),
            "corrected p": number(row.p_holm, ".2g"), "verdict": row.verdict, "runs": str(row.runs),
            "parameters": f"{row.parameters:,}", "tokens": f"{row.tokens:,}", "FLOPs": number(row.flops, ".3g"),
            "seconds": number(row.seconds, ".1f"), "match": number(row.match - 1, "+.2%"), "sized by": row.sized_by,
            "chosen": getattr(row, "chosen", "")})
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
    far = ", ".join(f"{one.variant.label} ({one.match - 1:+.1%}, the nearest there is)"
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
