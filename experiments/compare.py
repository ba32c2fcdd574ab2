"""Compare saved runs: `python experiments/compare.py RUN RUN ... ["tiny-*"] [curve.csv]`.

A table of what became of each, the flags in which they differ, how sure the gap to the first one is, and a picture of
their curves. Runs that differ in train.seed alone are one line, with its 95 % band. Other people's logs join: CSVs with
a column of steps, TensorBoard's event files, what nanoGPT prints.
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from configuration.command_line import parse_or_exit
    from experiments.comparing.command import parse

    command = parse_or_exit(parse, sys.argv[1:], __doc__)

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from configuration.command_line import fail, warn
from experiments.comparing.command import Options, parse
from experiments.comparing.differences import common_floor, differences, remarks
from experiments.comparing.gaps import gaps
from experiments.comparing.lines import Line, lines
from experiments.comparing.measures import held_out, measure_all
from experiments.comparing.pictures import default_axis, default_column, draw_lines, not_drawn, require
from experiments.comparing.sources import Source, find
from experiments.comparing.table import graded, line_table, run_table
from run_store.atomic_files import write_bytes, write_text
from training.report import shown

FEW = 6  # lines, up to which each is a column of the printed table


class Comparison(NamedTuple):
    """All that can be told of some runs."""

    lines: list[Line]
    runs: pd.DataFrame  # figures of each run
    table: pd.DataFrame  # the same of each line, written out
    differences: pd.DataFrame  # flags
    remarks: list[str]


def compare(options: Options, sources: Sequence[Source]) -> Comparison:
    """Measure the sources, and put them side by side. Raises ValueError for a text that cannot be had."""
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


def write(options: Options, found: Comparison) -> list[Path]:
    """Write the picture, and what else the options name; the files."""
    picture = io.BytesIO()
    draw_lines(found.lines, y=options.y, x=options.x, smooth=options.smooth, log_x=options.log_x, log_y=options.log_y,
               start=options.start).savefig(picture, dpi=130)
    options.png.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.png, picture.getvalue())
    if options.csv:
        write_text(options.csv, found.runs.to_csv(index_label="run"))
    if options.json:
        write_text(options.json, found.runs.to_json(orient="index", indent=1, double_precision=15) + "\n")
    if options.html:
        write_html(options, found)
    return [path for path in (options.png, options.csv, options.json, options.html) if path]


def write_html(options: Options, found: Comparison) -> None:
    """Write the page, with texts that the runs write now."""
    from experiments.comparing.page import write_page  # plotly takes a second
    from experiments.comparing.samples import same_prompts

    write_page(options.html, title=" · ".join(line.name for line in found.lines), lines=found.lines, table=found.table,
               differences=found.differences, remarks=found.remarks, floor=common_floor(found.lines),
               samples=same_prompts(found.lines, options.prompts, device=options.device),
               column=options.y[0] if options.y else None, axis=options.x)


def show(console: Console, found: Comparison) -> None:
    """Print the tables and the remarks."""
    is_tall = len(found.lines) <= FEW
    print_table(console, found.table.T if is_tall else found.table)
    if len(found.differences):
        print_table(console, found.differences if is_tall else found.differences.T)
    for remark in found.remarks:
        console.print(f"- {remark}", markup=False, highlight=False, soft_wrap=True)


def print_table(console: Console, frame: pd.DataFrame) -> None:
    """A table of texts; columns beyond a terminal's width come below the others."""
    text = frame.to_string(line_width=console.width if console.is_terminal else None)
    console.print(f"{text}\n", markup=False, highlight=False, soft_wrap=True)


def main(command: Options | None = None) -> None:
    """Compare what the command line says, which may have been read already."""
    console = Console()
    try:
        options = command or parse(sys.argv[1:], __doc__)
        sources, problems = find(options.runs)
        for problem in problems:
            warn(f"skipped: {problem}")
        found = compare(options, sources)
        show(console, found)
        for path in write(options, found):
            console.print(f"wrote {shown(path.resolve())}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(command)
