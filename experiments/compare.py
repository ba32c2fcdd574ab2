"""Compare saved runs: `python experiments/compare.py RUN RUN ... ["tiny-*"] [curve.csv]`.

A table of what became of each, the flags in which they differ, how sure the gap to the first one is, and a picture of
their curves. Runs that differ in train.seed alone are one line, with its 95 % band. Other people's logs join: CSVs with
a column of steps, TensorBoard's event files, what nanoGPT prints.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

import io
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import pandas as pd
import tyro
from pydantic.dataclasses import dataclass
from rich.console import Console

from config import CHECKED, parse_bytes
from configuration.command_line import fail, parse_flags, warn
from experiments.comparing.curve_pictures import (
    default_axis,
    default_column,
    draw_lines,
    not_drawn,
    require,
    require_smooth,
)
from experiments.comparing.differences import common_floor, differences, remarks
from experiments.comparing.gaps import gaps
from experiments.comparing.lines import Line, lines
from experiments.comparing.measures import held_out, measure_all
from experiments.comparing.run_tables import graded, line_table, run_table
from experiments.comparing.sources import CurveSource, find
from run_store.atomic_files import write_bytes, write_text
from runs import RESULTS
from training.report import shown

PICTURE = RESULTS / "compare.png"
FEW = 6  # lines, up to which each is a column of the printed table


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CompareOptions:
    """What to compare, and how to look at it."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # names in models/, paths, files, patterns; the first is the base
    y: tuple[str, ...] = ()  # columns of the log, a panel for each; none given = the validation loss
    x: str | None = None  # step, tokens, bytes, seconds or flops; None = tokens, or bytes where tokenizers differ
    smooth: float | None = None  # below 1: exponential mean, its weight for the past; from 2: window of so many rows
    log_x: bool = False  # logarithmic x
    log_y: bool = True  # logarithmic y, where all of it is above zero
    start: Annotated[float | None, tyro.conf.arg(name="from")] = None  # leave out what comes before, in units of x
    held_out: str = "200kB"  # of the first run's held-out text, to measure all best checkpoints on; 0 = measure nothing
    text: Path | None = None  # a text file to measure on in its place
    stories: int = 0  # stories that each run of tales writes, to be graded; 0 = those that its training graded
    prompts: tuple[str, ...] = ()  # html: texts for each run to continue; none given = the runs' own
    device: str = "auto"  # to measure and write on: auto = cuda, else mps, else cpu
    png: Path = PICTURE  # the picture
    csv: Path | None = None  # write the figures of each run there
    json: Path | None = None  # the same
    html: Path | None = None  # write all of it as one page

    @property
    def held_out_bytes(self) -> int:
        return parse_bytes(self.held_out)

    def __post_init__(self):
        require_smooth(self.smooth)
        if not self.held_out_bytes and self.held_out != "0":
            raise ValueError(f"held_out={self.held_out} is no size: use e.g. 200kB or 1MB, or 0 to measure nothing")
        if self.text and not self.held_out_bytes:
            raise ValueError(f"text={self.text} with held_out=0 measures nothing: leave one of them out")
        if self.prompts and not self.html:
            raise ValueError("prompts are continued on the page: give --html FILE, or leave them out")
        if self.stories < 0:
            raise ValueError(f"stories={self.stories} is below 0: use 0 for those that training graded")


class Comparison(NamedTuple):
    """All that can be told of some runs."""

    lines: list[Line]
    runs: pd.DataFrame  # figures of each run
    table: pd.DataFrame  # the same of each line, written out
    differences: pd.DataFrame  # flags
    remarks: list[str]


def compare(options: CompareOptions, sources: Sequence[CurveSource]) -> Comparison:
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


def write(options: CompareOptions, found: Comparison) -> list[Path]:
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


def write_html(options: CompareOptions, found: Comparison) -> None:
    """Write the page, with texts that the runs write now."""
    from experiments.comparing.compare_page import write_page  # plotly takes a second
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


def parse(words: Sequence[str]) -> CompareOptions:
    """The command line. Raises ValueError with the mistake in one sentence."""
    return parse_flags(words, CompareOptions(), "python experiments/compare.py", __doc__)


def main() -> None:
    console = Console()
    try:
        options = parse(sys.argv[1:])
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
    main()
