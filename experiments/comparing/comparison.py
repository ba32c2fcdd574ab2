"""A comparison of runs: measured, printed, and written as a picture, tables and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from configuration.command_line import print_line
from experiments.common.reports import csv_text, write_picture
from experiments.comparing.compare_options import CompareOptions
from experiments.comparing.curve_pictures import default_axis, default_column, draw_lines, not_drawn, require
from experiments.comparing.differences import common_floor, differences, remarks
from experiments.comparing.gaps import gaps
from experiments.comparing.lines import Line, lines
from experiments.comparing.measures import held_out, measure_all
from experiments.comparing.run_tables import graded, line_table, run_table
from experiments.comparing.sources import CurveSource
from run_store.atomic_files import write_text

FEW = 6  # lines; up to this number each is a column of the printed table


class Comparison(NamedTuple):
    """All that is known about some runs."""

    lines: list[Line]
    runs: pd.DataFrame  # figures of each run
    table: pd.DataFrame  # formatted figures of each line
    differences: pd.DataFrame  # flags
    remarks: list[str]


def compare(options: CompareOptions, sources: Sequence[CurveSource]) -> Comparison:
    """Measure the runs and compare them. Raises ValueError if the text to measure on cannot be read."""
    compared = lines(sources)
    x, y = options.x or default_axis(compared), options.y or (default_column(compared),)
    for column in y:
        require(compared, column, x, options.start)
    text, problems = held_out(compared, options.held_out_bytes, options.text)
    measured, unmeasured = measure_all(compared, text, device=options.device)
    stories, ungraded = graded(compared, options.stories, device=options.device)
    runs = run_table(compared, measured, text, stories)
    said = [*map(str, gaps(compared, measured, text)), *remarks(compared), *not_drawn(compared, y, x), *problems,
            *unmeasured, *ungraded, *([str(text)] if measured else [])]
    return Comparison(compared, runs, line_table(runs, compared), differences(compared), said)


def show(console: Console, found: Comparison) -> None:
    """Print the tables and the remarks."""
    is_tall = len(found.lines) <= FEW
    _print_table(console, found.table.T if is_tall else found.table)
    if len(found.differences):
        _print_table(console, found.differences if is_tall else found.differences.T)
    for remark in found.remarks:
        print_line(console, f"- {remark}")


def _print_table(console: Console, frame: pd.DataFrame) -> None:
    """Print a table; columns beyond a terminal's width come below the others."""
    text = frame.to_string(line_width=console.width if console.is_terminal else None)
    print_line(console, f"{text}\n")


def write(options: CompareOptions, found: Comparison) -> list[Path]:
    """Write the picture and the files that the options name, and return their paths."""
    options.png.parent.mkdir(parents=True, exist_ok=True)
    write_picture(options.png, draw_lines(found.lines, y=options.y, x=options.x, smooth=options.smooth,
                                          log_x=options.log_x, log_y=options.log_y, start=options.start))
    if options.csv:
        write_text(options.csv, csv_text(found.runs, index_label="run"))
    if options.json:
        write_text(options.json, found.runs.to_json(orient="index", indent=1, double_precision=15) + "\n")
    if options.html:
        _write_html(options, found)
    return [path for path in (options.png, options.csv, options.json, options.html) if path]


def _write_html(options: CompareOptions, found: Comparison) -> None:
    """Write the page, with texts that the runs write now."""
    from experiments.comparing.compare_page import same_prompts, write_page  # plotly takes a second

    write_page(options.html, title=" · ".join(line.name for line in found.lines), lines=found.lines, table=found.table,
               differences=found.differences, remarks=found.remarks, floor=common_floor(found.lines),
               samples=same_prompts(found.lines, options.prompts, device=options.device),
               column=options.y[0] if options.y else None, axis=options.x)
