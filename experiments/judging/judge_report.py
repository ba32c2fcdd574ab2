"""What a judging leaves behind: every text with its verdict, the tables, and a page to read.

    experiments/results/judge-<runs>/
        report.md                   the result in words and tables, with examples
        criteria.csv  stories.csv   of grade: the means; each text, its grades, what the judge said
        pairs.csv                   of versus: each pair, its outcome, what the judge said in either order
"""

import math
from pathlib import Path

import pandas as pd

from experiments.common.intervals import LEVEL
from experiments.judging.continuations import Exam
from experiments.judging.rubric import AGES, CRITERIA
from experiments.judging.verdict_tables import Duel, Verdicts, ages, criteria_table
from run_store.atomic_files import write_text
from training.report import shown

EXAMPLES = 3  # texts shown in the report


# ---- grades ----


def write_grades(folder: Path, exam: Exam, host: str, verdicts: dict[str, Verdicts]) -> str:
    """Write the results of grading; what to say of them."""
    table = criteria_table(verdicts)
    said = [markdown(grade_rows(table, verdicts)), "", *gap_lines(table)]
    write_text(folder / "criteria.csv", table.to_csv(index=False))
    write_text(folder / "stories.csv", story_table(exam, verdicts).to_csv(index=False))
    write_text(folder / "report.md", "\n".join([
        f"# {', '.join(verdicts)}: graded by {exam.options.judge_model}\n", exam.conditions(host), "", *said,
        "", "Means of 10 with their 95 % interval over the beginnings, by Student's t. Ages: "
        f"{', '.join(f'{letter} {years}' for letter, years in AGES.items())}.\n", *examples(exam, verdicts)]) + "\n")
    return told(said, folder)


def grade_rows(table: pd.DataFrame, verdicts: dict[str, Verdicts]) -> list[dict[str, str]]:
    """A row for each run, as people read it."""
    rows = []
    for name, given in verdicts.items():
        means = {row.criterion: spread(row.mean, row.low, row.high)
                 for row in table[table.run == name].itertuples()}
        groups = ", ".join(f"{letter} {number}" for letter, number in ages(given).items())
        rows.append({"run": name, **means, "age groups": groups, "graded": str(len(given) - given.count(None)),
                     "unparsable": str(given.count(None))})
    return rows


def gap_lines(table: pd.DataFrame) -> list[str]:
    """What each later run has more than the first, in sentences."""
    said, base = [], table.run.iloc[0] if len(table) else ""
    for row in table.dropna(subset="gap_low").itertuples():
        inside = ": inside the noise" if row.p >= LEVEL else ""
        said.append(f"{row.criterion}: {row.run} has {row.gap_mean:+.2f} against {base} on the same beginnings (95 %: "
                    f"{row.gap_low:+.2f} to {row.gap_high:+.2f}), p = {row.p:.4f} after correction{inside}.")
    return said


def story_table(exam: Exam, verdicts: dict[str, Verdicts]) -> pd.DataFrame:
    """A row for each text."""
    columns = ["run", "number", "beginning", "text", *CRITERIA, "age", "assessment"]
    rows = [{"run": writer.name, "number": place, "beginning": beginning, "text": text} | (verdict or {})
            for writer in exam.writers for place, (beginning, text, verdict) in enumerate(
                zip(exam.beginnings, writer.texts, verdicts[writer.name], strict=True), start=1)]
    return pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in CRITERIA})


def examples(exam: Exam, verdicts: dict[str, Verdicts]) -> list[str]:
    """The first texts, with what the judge said."""
    lines = ["## Examples"]
    for place, beginning in enumerate(exam.beginnings[:EXAMPLES]):
        for writer in exam.writers:
            verdict = verdicts[writer.name][place]
            grades = "no reply was what was asked for"
            if verdict:
                grades = ", ".join(f"{name} {verdict[name]}" for name in CRITERIA if name in verdict)
                grades += f", age {verdict['age']}. {quoted(verdict['assessment'])}"
            lines += ["", f"{place + 1}, {writer.name}: {grades}", "",
                      f"> {quoted(beginning)} **\\*\\*\\*** {quoted(writer.texts[place])}"]
    return lines


# ---- pairs ----


def write_duel(
    folder: Path, exam: Exam, host: str, forward: Verdicts, backward: Verdicts, result: Duel,
) -> str:
    """Write the results of a blind comparison; what to say of them."""
    one, other = (writer.name for writer in exam.writers)
    said = [markdown([duel_row(one, other, result)]), "", *duel_lines(one, other, result)]
    write_text(folder / "pairs.csv", pair_table(exam, forward, backward, result).to_csv(index=False))
    write_text(folder / "report.md", "\n".join([
        f"# {one} and {other}: compared by {exam.options.judge_model}\n", exam.conditions(host), "", *said, "",
        *pair_examples(exam, forward, backward, result)]) + "\n")
    return told(said, folder)


def pair_examples(exam: Exam, forward: Verdicts, backward: Verdicts, result: Duel) -> list[str]:
    """The first pairs, with what the judge said in both orders."""
    one, other = exam.writers
    lines = ["## Examples"]
    for place, beginning in enumerate(exam.beginnings[:EXAMPLES]):
        lines += ["", f"{place + 1}: {outcome(exam, result.outcomes[place])}", "", f"> {quoted(beginning)} ...", ">",
                  f"> {one.name}: **\\*\\*\\*** {quoted(one.texts[place])}", ">",
                  f"> {other.name}: **\\*\\*\\*** {quoted(other.texts[place])}"]
        for first, verdicts in ((one, forward), (other, backward)):
            if verdict := verdicts[place]:
                better = {"1": "the first", "2": "the second", "equal": "neither"}[verdict["better"]]
                lines += ["", f"{first.name} first: {better}. {quoted(verdict['assessment'])}"]
    return lines


def outcome(exam: Exam, kind: str) -> str:
    """Of a pair, in words."""
    one, other = exam.writers
    return {"a": one.name, "b": other.name, "tie": "tie", "": "unparsable"}[kind]


def pair_table(exam: Exam, forward: Verdicts, backward: Verdicts, result: Duel) -> pd.DataFrame:
    """A row for each pair: who won, and what the judge said in either order (1 = what it read first)."""
    one, other = exam.writers
    columns = {"number": range(1, len(exam.beginnings) + 1), "beginning": exam.beginnings, one.name: one.texts,
               other.name: other.texts, "outcome": [outcome(exam, kind) for kind in result.outcomes]}
    for first, verdicts in ((one, forward), (other, backward)):
        for part in ("better", "assessment"):
            columns[f"{part}, {first.name} first"] = [verdict and verdict[part] for verdict in verdicts]
    return pd.DataFrame(columns)


def duel_row(one: str, other: str, result: Duel) -> dict[str, str]:
    return {f"{one} wins": str(result.wins), f"{other} wins": str(result.losses), "ties": str(result.ties),
            "unparsable": str(result.missing), "p (sign test)": number(result.p, 4)}


def duel_lines(one: str, other: str, result: Duel) -> list[str]:
    """The outcome and the judge's leaning to a place, in sentences."""
    share, low, high = result.share
    if math.isnan(share):
        said = "No pair was decided: the judge sees no difference, or goes by the order."
    else:
        decided = result.wins + result.losses
        said = (f"{one} wins {share:.0%} of the {decided} pairs that were decided (95 %: {low:.0%} to {high:.0%}); "
                f"p = {number(result.p, 4)}: ")
        better = one if result.wins > result.losses else other
        said += "inside the noise." if result.p >= LEVEL else f"{better} is better."
    flips = result.for_first + result.for_second
    if not flips:
        return [said, "The order never changed the judge's mind."]
    bias = (f"The order changed the judge's mind in {flips} pairs, which count as ties: for what it read first in "
            f"{result.for_first}, for what it read second in {result.for_second} (p = {number(result.bias_p, 4)}).")
    return [said, bias]


# ---- both ----


def told(said: list[str], folder: Path) -> str:
    return "\n".join([*said, "", f"every text and verdict: {shown(folder)}"])


def markdown(rows: list[dict[str, str]]) -> str:
    heading = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heading, ["---"] * len(heading), *([row.get(name, "") for name in heading] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def spread(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def quoted(text: str) -> str:
    """On one line."""
    return " ".join(text.split())
