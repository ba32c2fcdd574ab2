"""The report on judging.

    experiments/results/judge-<runs>/
        report.md                   the result in words and tables, with examples
        criteria.csv  stories.csv   grade: the means; each text with its grades and the judge's assessment
        pairs.csv                   versus: each pair with its outcome and the assessments in both orders
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.common.intervals import LEVEL
from experiments.common.reports import Markdown, cell, csv_text, markdown_table, plain
from experiments.judging.continuations import Submission
from experiments.judging.rubric import AGES, CRITERIA
from experiments.judging.verdict_tables import Duel, Verdicts, ages, criteria_table
from run_store.atomic_files import write_text
from run_store.listing import shown

EXAMPLES = 3  # texts shown in the report


def write_page(folder: Path, heading: str, submission: Submission, said: list[str], rest: list[str]) -> str:
    """Write report.md, and return what to print of it."""
    title = f"# {plain(heading)} by {plain(submission.options.judge_model)}\n"
    write_text(folder / "report.md",
               "\n".join([title, plain(submission.conditions()), "", *map(plain, said), "", *rest]) + "\n")
    return "\n".join([*said, "", f"every text and verdict: {shown(folder)}"])


# ---- grades ----


def write_grades(folder: Path, submission: Submission, verdicts: dict[str, Verdicts]) -> str:
    """Write the results of grading, and return what to print."""
    table = criteria_table(verdicts)
    write_text(folder / "criteria.csv", csv_text(table, index=False))
    write_text(folder / "stories.csv", csv_text(story_table(submission, verdicts), index=False))
    reading = ("Means of 10 with their 95 % interval over the beginnings, by Student's t. Ages: "
               f"{', '.join(f'{letter} {years}' for letter, years in AGES.items())}.\n")
    return write_page(folder, f"{', '.join(verdicts)}: graded", submission,
                      [Markdown(markdown_table(grade_rows(table, verdicts))), "", *gap_lines(table)],
                      [reading, *examples(submission, verdicts)])


def grade_rows(table: pd.DataFrame, verdicts: dict[str, Verdicts]) -> list[dict[str, str]]:
    """A printed row for each run."""
    rows = []
    for name, given in verdicts.items():
        means = {row.criterion: f"{row.mean:.2f} ({cell('.2f', row.low, row.high)})".removesuffix(" ()")
                 for row in table[table.run == name].itertuples()}
        groups = ", ".join(f"{letter} {number}" for letter, number in ages(given).items())
        rows.append({"run": name, **means, "age groups": groups, "graded": str(len(given) - given.count(None)),
                     "unparsable": str(given.count(None))})
    return rows


def gap_lines(table: pd.DataFrame) -> list[str]:
    """A sentence on each difference to the first run."""
    said, base = [], table.run.iloc[0] if len(table) else ""
    for row in table.dropna(subset="gap_low").itertuples():
        inside = ": inside the noise" if row.p >= LEVEL else ""
        said.append(f"{row.criterion}: {row.run} has {row.gap_mean:+.2f} against {base} on the same beginnings (95 %: "
                    f"{row.gap_low:+.2f} to {row.gap_high:+.2f}), p = {row.p:.4f} after correction{inside}.")
    return said


def story_table(submission: Submission, verdicts: dict[str, Verdicts]) -> pd.DataFrame:
    """A row for each text."""
    columns = ["run", "number", "beginning", "text", *CRITERIA, "age", "assessment"]
    rows = [{"run": writer.name, "number": place, "beginning": prompt, "text": text} | (verdict or {})
            for writer in submission.writers for place, (prompt, text, verdict) in enumerate(
                zip(submission.prompts, writer.texts, verdicts[writer.name], strict=True), start=1)]
    return pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in CRITERIA})


def examples(submission: Submission, verdicts: dict[str, Verdicts]) -> list[str]:
    """The first texts with their verdicts."""
    lines = ["## Examples"]
    for place, prompt in enumerate(submission.prompts[:EXAMPLES]):
        for writer in submission.writers:
            verdict = verdicts[writer.name][place]
            grades = "no valid reply"
            if verdict:
                grades = ", ".join(f"{name} {verdict[name]}" for name in CRITERIA if name in verdict)
                grades += f", age {verdict['age']}. {on_one_line(verdict['assessment'])}"
            lines += ["", f"{place + 1}, {writer.name}: {grades}", "",
                      f"> {on_one_line(prompt)} {quoted(writer.texts[place])}"]
    return lines


# ---- pairs ----


def write_duel(folder: Path, submission: Submission, forward: Verdicts, backward: Verdicts, result: Duel) -> str:
    """Write the results of a blind comparison, and return what to print."""
    one, other = names = [writer.name for writer in submission.writers]
    orders = {one: forward, other: backward}  # by the run whose text is read first
    outcomes = [dict(zip(("a", "b", "tie", ""), (one, other, "tie", "unparsable"), strict=True))[kind]
                for kind in result.outcomes]
    write_text(folder / "pairs.csv", csv_text(pair_table(submission, orders, outcomes), index=False))
    row = {f"{one} wins": result.wins, f"{other} wins": result.losses, "ties": result.ties,
           "unparsable": result.missing, "p (sign test)": cell(".4f", result.p)}
    return write_page(folder, f"{one} and {other}: compared", submission,
                      [Markdown(markdown_table([row])), "", *duel_lines(*names, result)],
                      pair_examples(submission, orders, outcomes))


def pair_table(submission: Submission, orders: dict[str, Verdicts], outcomes: Sequence[str]) -> pd.DataFrame:
    """A row for each pair: who won, and the judge's reply in both orders (1 = the text it read first)."""
    columns = {"number": range(1, len(submission.prompts) + 1), "beginning": submission.prompts,
               **{writer.name: writer.texts for writer in submission.writers}, "outcome": outcomes}
    for first, verdicts in orders.items():
        for part in ("better", "assessment"):
            columns[f"{part}, {first} first"] = [verdict and verdict[part] for verdict in verdicts]
    return pd.DataFrame(columns)


def pair_examples(submission: Submission, orders: dict[str, Verdicts], outcomes: Sequence[str]) -> list[str]:
    """The first pairs with the judge's replies in both orders."""
    lines = ["## Examples"]
    for place, prompt in enumerate(submission.prompts[:EXAMPLES]):
        lines += ["", f"{place + 1}: {outcomes[place]}", "", f"> {on_one_line(prompt)} ..."]
        for writer in submission.writers:
            lines += [">", f"> {writer.name}: {quoted(writer.texts[place])}"]
        for first, verdicts in orders.items():
            if verdict := verdicts[place]:
                better = {"1": "the first", "2": "the second", "equal": "neither"}[verdict["better"]]
                lines += ["", f"{first} first: {better}. {on_one_line(verdict['assessment'])}"]
    return lines


def duel_lines(one: str, other: str, result: Duel) -> list[str]:
    """The outcome and the judge's bias for a position, in sentences."""
    share, low, high = result.share
    if math.isnan(share):
        said = "No pair was decided: the judge sees no difference, or goes by the order."
    else:
        decided = result.wins + result.losses
        better = one if result.wins > result.losses else other
        said = (f"{one} wins {share:.0%} of the {decided} pairs that were decided (95 %: {low:.0%} to {high:.0%}); "
                f"p = {result.p:.4f}: {'inside the noise' if result.p >= LEVEL else f'{better} is better'}.")
    flips = result.for_first + result.for_second
    if not flips:
        return [said, "The order never changed the judge's mind."]
    bias = (f"The order changed the judge's mind in {flips} pairs, which count as ties: for what it read first in "
            f"{result.for_first}, for what it read second in {result.for_second} (p = {result.bias_p:.4f}).")
    return [said, bias]


# ---- both ----


def on_one_line(text: str) -> str:
    """As Markdown."""
    return plain(" ".join(text.split()))


def quoted(text: str) -> str:
    """A continuation after its mark."""
    return f"**\\*\\*\\*** {on_one_line(text)}"
