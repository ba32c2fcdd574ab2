"""What an ablation leaves behind: a page of Markdown, the table, the forest plot.

    experiments/results/<name>/
        report.md   what was found, sized and trained      table.csv   the same in full figures
        forest.png  the differences with their intervals   logs/       what each process said
"""

import io
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.forest import draw_forest
from experiments.ablating.results import BETTER, NOISE, WORSE, result_table
from experiments.ablating.runner import VariantOutcome
from experiments.ablating.sizing import TOLERANCE
from experiments.ablating.variants import BASE, spell
from experiments.common.intervals import LEVEL
from run_store.atomic_files import write_bytes, write_text
from training.report import shown

MATCHED = {"params": "parameters", "flops": "FLOPs", "seconds": "seconds of training"}
BY = {"width": "by width", "depth": "by depth", "mlp": "by the MLP's width", "steps": "by the number of steps"}


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """What was found and written; as a text, what to say at the end."""

    folder: Path
    table: pd.DataFrame  # a row for each variant, as in table.csv
    findings: tuple[str, ...]  # sentences

    def __str__(self) -> str:
        return "\n".join([*self.findings, f"the report: {shown(self.folder / 'report.md')}"])


def write_report(
    options: AblationOptions, outcomes: Sequence[VariantOutcome], command: Sequence[str],
) -> AblationReport:
    """Write what came of an ablation into its folder, in place of what was there."""
    table = result_table(outcomes)
    findings = (*_unfinished(outcomes), *_findings(table))
    write_text(options.folder / "table.csv", table.to_csv(index=False))
    picture = options.folder / "forest.png"
    picture.unlink(missing_ok=True)
    if table.difference.notna().any():
        write_bytes(picture, _png(table, outcomes, options))
    write_text(options.folder / "report.md", _page(options, outcomes, table, findings, command))
    return AblationReport(folder=options.folder, table=table, findings=findings)


def _unfinished(outcomes: Sequence[VariantOutcome]) -> list[str]:
    missing = sum(outcome.missing for outcome in outcomes)
    if not missing:
        return []
    return [f"Unfinished: {missing} {'run is' if missing == 1 else 'runs are'} still to be trained. What stands here "
            "may change, and its p values do not allow for having been looked at early."]


def _findings(table: pd.DataFrame) -> list[str]:
    """What is better and worse than the base, what cannot be told, and what failed."""
    others, sentences = table[table.variant != BASE], []
    for found in (BETTER, WORSE):
        for row in others[others.verdict == found].itertuples():
            sentences.append(
                f"{row.variant} is {found} than the base: {row.difference:+.4f} bits per byte "
                f"({row.difference_low:+.4f} to {row.difference_high:+.4f}), corrected p {row.p_holm:.2g}.")
    if (others.verdict == NOISE).any():
        names = ", ".join(f"{row.variant} ({row.difference:+.4f}, corrected p {row.p_holm:.2g})"
                          for row in others[others.verdict == NOISE].itertuples())
        sentences.append(f"Inside the noise, and so neither better nor worse as far as these runs can tell: {names}.")
        smallest = ((others.wide_high - others.wide_low) / 2).median()
        sentences.append(f"To be told from noise a difference had to be about {smallest:.4f} bits per byte (median of "
                         "the variants); more --seeds tell smaller ones.")
    known = {BETTER, WORSE, NOISE}
    sentences += [f"{row.variant}: {row.verdict}." for row in others[~others.verdict.isin(known)].itertuples()]
    base = table[table.variant == BASE].iloc[0]
    return sentences + ([f"The base: {base.verdict}."] if math.isnan(base.bits_per_byte) else [])


def _png(table: pd.DataFrame, outcomes: Sequence[VariantOutcome], options: AblationOptions) -> bytes:
    count = max(len(outcome.values) for outcome in outcomes)
    title = (f"{options.name}: {count} seeds, thick bars 95 % intervals, "
             "thin ones 95 % for all of them together")
    picture = io.BytesIO()
    draw_forest(table, {outcome.planned.variant.label: outcome.values for outcome in outcomes}, title).savefig(
        picture, dpi=130)
    return picture.getvalue()


def _page(
    options: AblationOptions, outcomes: Sequence[VariantOutcome], table: pd.DataFrame, findings: Sequence[str],
    command: Sequence[str],
) -> str:
    parts = [f"# {options.name}", f"```\npython experiments/ablate.py {shlex.join(command)}\n```",
             "\n".join(f"- {sentence}" for sentence in findings)]
    if (options.folder / "forest.png").exists():
        parts.append("![differences to the base](forest.png)")
    parts += ["## The variants, best first", _markdown(_shown(table)), _how_to_read(table), "## How it was done",
              "\n".join(f"- {sentence}" for sentence in _method(options, outcomes))]
    if options.sweep:
        parts += ["## The sweep", _sweep(options, outcomes)]
    runs = "\n".join(f"- {outcome.planned.variant.label}: {', '.join(f'`{name}`' for name in outcome.runs) or 'none'}"
                     for outcome in outcomes)
    parts += ["## The runs", runs,
              f"All their curves: `python experiments/compare.py '{options.name}-*'`."]
    return "\n\n".join(parts) + "\n"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table for people: fewer columns, fewer digits."""
    def number(value: float, form: str) -> str:
        return "" if math.isnan(value) else format(value, form)

    rows = []
    for row in table.itertuples():
        cells = {"variant": row.variant, "bits per byte": number(row.bits_per_byte, ".4f")}
        cells["95 % interval"] = f"{row.low:.4f} to {row.high:.4f}" if not math.isnan(row.low) else ""
        cells["less the base's"] = number(row.difference, "+.4f")
        cells["its 95 % interval"] = (f"{row.difference_low:+.4f} to {row.difference_high:+.4f}"
                                      if not math.isnan(row.difference_low) else "")
        cells |= {"p": number(row.p, ".2g"), "corrected p": number(row.p_holm, ".2g"), "verdict": row.verdict,
                  "runs": str(row.runs), "parameters": f"{row.parameters:,}", "tokens": f"{row.tokens:,}",
                  "FLOPs": number(row.flops, ".3g"), "seconds": number(row.seconds, ".1f"),
                  "match": number(row.match - 1, "+.2%"), "sized by": row.sized_by}
        if "chosen" in table:
            cells["chosen"] = row.chosen
        rows.append(cells)
    shown = pd.DataFrame(rows)
    return shown.loc[:, (shown != "").any()]


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table), ["---"] * len(table.columns), *table.values.tolist()]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def _how_to_read(table: pd.DataFrame) -> str:
    tested = int(table.p.notna().sum())
    return (f"Bits per byte of the whole validation part after the last step: mean over the seeds, and its interval by "
            f"Student's t. p: Welch's test against the base; corrected by Holm for {tested} "
            f"{'variant' if tested == 1 else 'variants'}: were none of them different, at least one would be called "
            f"better or worse with a chance of {LEVEL:.0%}, not more.")


def _method(options: AblationOptions, outcomes: Sequence[VariantOutcome]) -> list[str]:
    """How the variants were made alike, what is not alike all the same."""
    base, seeds = outcomes[0].planned, outcomes[0].seeds
    said = [f"Seeds {seeds[0]} to {seeds[-1]} of each variant; a seed gives all of one text and context the same rows "
            "in the same order." if seeds else "The base could not be trained.",
            f"The base: {base.parameters:,} parameters, {base.tokens:,} tokens."]
    if any(flag.startswith("data.") for outcome in outcomes for flag in outcome.planned.variant.flags):
        said.append("Variants that change the text may be measured on other texts, too: --data.val-name gives all the "
                    "same one.")
    if options.match == "none":
        return [*said, "Variants are as their flags make them, trained on as many tokens as the base."]
    far = [outcome.planned for outcome in outcomes if abs(outcome.planned.match - 1) > TOLERANCE]
    said.append(f"Variants have as many {MATCHED[options.match]} as the base, {BY[options.settled_match_by]}, within "
                f"{TOLERANCE:.0%}" + (", but for: " + ", ".join(f"{one.variant.label} ({one.match - 1:+.1%}, the "
                                      "nearest there is)" for one in far) if far else "") + ".")
    tokens = {outcome.planned.tokens for outcome in outcomes}
    said.append("All are trained on the same number of tokens." if len(tokens) == 1 else
                f"They are trained on {min(tokens):,} to {max(tokens):,} tokens.")
    if options.match == "seconds":
        said.append("Seconds are those of training steps as measured beforehand with nothing else running; evaluations "
                    "come on top, and runs side by side slow each other down.")
    return said


def _sweep(options: AblationOptions, outcomes: Sequence[VariantOutcome]) -> str:
    """Bits per byte of each variant at each value on the first seed, and what is to be said of the choice."""
    flag = options.sweep.partition("=")[0]
    rows = []
    for outcome in outcomes:
        chosen = spell(outcome.chosen)
        cells = {value: "failed" if math.isnan(found) else f"**{found:.4f}**" if value == chosen else f"{found:.4f}"
                 for value, found in outcome.swept.items()}
        rows.append({"variant": outcome.planned.variant.label} | cells)
    seed = outcomes[0].planned.cfg.train.seed
    edges = [outcome.planned.variant.label for outcome in outcomes
             if outcome.chosen is not None and spell(outcome.chosen) in _ends(outcome.swept)]
    said = [f"{flag}: bits per byte with seed {seed}, by which each variant's value (bold) was chosen. That seed "
            "counts for nothing else, for the best of several is better than it will be again."]
    if edges:
        said.append(f"At the end of the range, so that a value beyond it may be better still: {', '.join(edges)}.")
    return "\n\n".join([_markdown(pd.DataFrame(rows)), *said])


def _ends(swept: dict[str, float]) -> set[str]:
    """The least and the largest of the values, where they are numbers."""
    try:
        ranked = sorted(swept, key=float)
    except ValueError:
        return set()
    return {ranked[0], ranked[-1]}
