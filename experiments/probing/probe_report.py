"""The report on probes.

    experiments/results/<name>/
        report.html   findings, pictures and figures     heat.png, lengths.png   the pictures
        table.csv     the figures in full precision      logs/                   the output of each process
"""

import base64
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from experiments.common.reports import csv_text
from experiments.probing.probe_options import ProbeOptions
from experiments.probing.probe_pictures import draw_heat_map, draw_lengths, grid, spell
from experiments.probing.probing import SOLVED, CellOutcome, result_table
from probes import PROBES
from run_store.atomic_files import write_bytes, write_text
from run_store.listing import shown

HERE = Path(__file__).resolve().parent
STYLE = HERE.parent / "comparing" / "page.css"


def write_report(options: ProbeOptions, outcomes: list[CellOutcome], command: Sequence[str]) -> str:
    """Write the results into their folder, over older ones, and return what to print."""
    table, findings = result_table(outcomes), [*unfinished(outcomes), *found_by_task(outcomes)]
    write_text(options.folder / "table.csv", csv_text(table, index=False))
    seeds = max(len(found.runs) for found in outcomes)
    title = f"{options.name}: {seeds} seed{'s' * (seeds != 1)}, the best of {len(options.rates)} learning rates"
    drawn = {"heat.png": draw_heat_map(outcomes, title)}
    if any(len(found.accuracy) > 1 for found in outcomes):
        drawn["lengths.png"] = draw_lengths(outcomes, title)
    pictures = {name: picture(figure) for name, figure in drawn.items()}
    (options.folder / "lengths.png").unlink(missing_ok=True)
    for name, data in pictures.items():
        write_bytes(options.folder / name, data)
    page, style = (path.read_text(encoding="utf-8") for path in (HERE / "page.html", STYLE))
    write_text(options.folder / "report.html", Environment(autoescape=True, trim_blocks=True).from_string(page).render(
        title=options.name, style=style, findings=findings, method=method(options, outcomes),
        command=f"python experiments/probe.py {shlex.join(command)}", rows=rows_of(outcomes),
        pictures={name: base64.b64encode(data).decode() for name, data in pictures.items()}, sources=sources(outcomes)))
    return "\n".join([*map(str, findings), f"the report: {shown(options.folder / 'report.html')}"])


def picture(figure: Figure) -> bytes:
    """A figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, dpi=130)
    return file.getvalue()


def unfinished(outcomes: Sequence[CellOutcome]) -> list[str]:
    missing, failed = sum(found.missing for found in outcomes), [found for found in outcomes if found.failure]
    said = [f"Unfinished: {missing} {'run is' if missing == 1 else 'runs are'} still to be trained."] if missing else []
    return said + [f"{found.cell.mixer} on {found.cell.task}: {found.failure}." for found in failed]


def found_by_task(outcomes: Sequence[CellOutcome]) -> list[str]:
    """A sentence for each task: the accuracy of each mixer, the best first, and which solve it."""
    _, tasks, _ = grid(outcomes)
    said = []
    for task in tasks:
        mine = [found for found in outcomes if found.cell.task == task and found.runs]
        mine.sort(key=lambda found: -found.accuracy[1].mean)
        parts = [f"{found.cell.mixer} {spell(found.accuracy[1], ' ')}{when_solved(found)}" for found in mine]
        if parts:
            said.append(f"{task}: {', '.join(parts)}; a constant guess {mine[0].cell.guess:.1%}.")
    return said


def when_solved(found: CellOutcome) -> str:
    """e.g. " (2 of 3 seeds solve it, at step 400)"."""
    if not found.solved_at:
        return ""
    step = pd.Series(found.solved_at).median()
    return f" ({len(found.solved_at)} of {len(found.runs)} seeds solve it, at step {step:,.0f})"


def method(options: ProbeOptions, outcomes: Sequence[CellOutcome]) -> list[str]:
    """How to read the figures."""
    none = [found.cell.mixer for found in outcomes if not found.cell.longer]
    said = [
        "Accuracy: share of the asked symbols of the validation rows that the model finds likeliest, after the last "
        "step; the mean over the seeds, and half its 95 % interval by Student's t.",
        f"The rate is the one of {', '.join(f'{rate:g}' for rate in options.rates)} with the highest mean accuracy. It "
        "is chosen on the same seeds, so accuracies are a little too high, for all mixers alike." + (
            f" Every rate is tried with {options.sweep_seeds} of the {options.seeds} seeds, the best alone with all."
            if options.sweep_seeds else ""),
        f"A run solves a task at the first evaluation with an accuracy of {SOLVED:.0%} or more; the median of those "
        "that do.",
        "A constant guess always gives the commonest answer.",
        "State: bytes in float32 that a layer keeps of a row." + (
            f" All keep {options.equal_state:,}, as near below as their flags allow." if options.equal_state else "")]
    if none and options.longer:
        said.append(f"Without longer rows, for learned positions end: {', '.join(dict.fromkeys(none))}.")
    return said


def sources(outcomes: Sequence[CellOutcome]) -> dict[str, str]:
    """Where each task was published."""
    return {found.cell.task: PROBES[found.cell.cfg.data.name[0]].source for found in outcomes}


def rows_of(outcomes: Sequence[CellOutcome]) -> list[dict[str, str]]:
    """The figures of the page's table, formatted."""
    factors = sorted({factor for found in outcomes for factor in found.accuracy})
    rows = []
    for found in outcomes:
        cell = found.cell
        row = {"task": cell.task, "mixer": cell.mixer, "learning rate": "" if found.rate is None else f"{found.rate:g}"}
        row |= {"accuracy" if factor == 1 else f"rows {factor} x as long":
                spell(found.accuracy[factor], " ") if factor in found.accuracy else "none" for factor in factors}
        row |= {"solved": f"{len(found.solved_at)} of {len(found.runs)}" + (
            f", step {pd.Series(found.solved_at).median():,.0f}" if found.solved_at else ""),
            "at each rate": ", ".join(f"{rate:g}: {spell(one, ' ')}" for rate, one in found.rates.items()),
            "symbols": f"{cell.length:,}", "parameters": f"{cell.parameters:,}", "state": f"{cell.state_bytes:,.0f}"}
        rows.append(row)
    return rows


