"""The options of a comparison."""

import math
from pathlib import Path
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from config import CHECKED, parse_bytes
from run_store.listing import RESULTS

MAX_WINDOW = 10**9  # rows


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CompareOptions:
    """What to compare, and how to show it."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # names in models/, paths, files, patterns; the first is the base
    y: tuple[str, ...] = ()  # columns of the log, a panel for each; none given = the validation loss
    x: str | None = None  # step, tokens, bytes, seconds or flops; None = tokens, or bytes if tokenizers differ
    smooth: float | None = None  # below 1: exponential mean, its weight for the past; from 2: rows of a window
    log_x: bool = False  # logarithmic x
    log_y: bool = True  # logarithmic y, if all values are above zero
    start: Annotated[float | None, tyro.conf.arg(name="from")] = None  # leave out smaller values of x
    held_out: str = "200kB"  # of the first run's held-out text, to measure all best checkpoints on; 0 = measure nothing
    text: Path | None = None  # a text file to measure on instead
    stories: int = 0  # stories that each run of tales writes, to be graded; 0 = those graded by its training
    prompts: tuple[str, ...] = ()  # html: texts for each run to continue; none given = the runs' own
    device: str = "auto"  # to measure and write on: auto = cuda, else mps, else cpu
    png: Path = RESULTS / "compare.png"  # the picture
    csv: Path | None = None  # write the figures of each run there
    json: Path | None = None  # the same
    html: Path | None = None  # write everything as one page

    @property
    def held_out_bytes(self) -> int:
        return parse_bytes(self.held_out)

    def __post_init__(self):
        smooth = self.smooth
        if smooth is not None and not (0 < smooth < 1 or 2 <= smooth < MAX_WINDOW and smooth == int(smooth)):
            raise ValueError(f"smooth={smooth:g} is neither a weight nor a window: use e.g. 0.9 for an exponential "
                             "mean, or 5 for a window of 5 rows")
        if self.start is not None and not math.isfinite(self.start):
            raise ValueError(f"from={self.start:g} is not finite: use the x from which the curves are to be drawn")
        if not self.held_out_bytes and self.held_out != "0":
            raise ValueError(f"held_out={self.held_out} is not a size: use e.g. 200kB or 1MB, or 0 to measure nothing")
        if self.text and not self.held_out_bytes:
            raise ValueError(f"text={self.text} with held_out=0 measures nothing: leave one of them out")
        if self.prompts and not self.html:
            raise ValueError("prompts are continued on the page: give --html FILE, or leave them out")
        if self.stories < 0:
            raise ValueError(f"stories={self.stories} is below 0: use 0 for those that training graded")
