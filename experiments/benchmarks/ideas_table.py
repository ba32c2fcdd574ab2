"""The benchmark ideas: what ablations of ideas found, with what each idea costs, as a page of the manual."""

import csv
import io
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from config import Config, override
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.results import NOISE
from experiments.ablating.variants import BASE, make_variants
from experiments.benchmarks.benchmark_options import Ideas
from experiments.benchmarks.gallery_table import timed_step
from experiments.benchmarks.measuring import best_seconds, clock_of
from experiments.common.reports import Markdown, markdown_table
from families.ideas import FOUND, IDEAS
from memory_prediction.process import choose_allocator
from model import Model
from run_store.atomic_files import write_text
from run_store.listing import RESULTS, ROOT
from runs import Run
from tools import pick_device, unfilled
from training.setup import Setup, prepare_run

COLUMNS = ("idea", "ablation", "difference", "low", "high", "verdict", "base", "parameters", "time")
HEADINGS = ("idea", "flag", "less the base's bits per byte, 95 %", "verdict", "parameters", "time")
MARK = "<!-- what follows is written by `python experiments/benchmark.py ideas` -->"


@dataclass(frozen=True)
class Row:
    """What an idea did in an ablation, and what it costs."""

    idea: str
    ablation: str
    difference: float
    low: float
    high: float
    verdict: str
    base: float  # bits per byte
    parameters: float  # with the idea / without
    time: float  # of a step, with the idea / without

    def cells(self) -> dict[str, str]:
        flags = " ".join(f"{name.removeprefix('model.')}={' '.join(value) if isinstance(value, tuple) else value}"
                         for name, value in IDEAS[self.idea].flags.items())
        change = f"{self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
        bold = "" if self.verdict == NOISE else "**"
        cells = (self.idea, Markdown(f"`{flags}`"), change, Markdown(f"{bold}{self.verdict}{bold}"),
                 f"x {self.parameters:.2f}", f"x {self.time:.2f}")
        return dict(zip(HEADINGS, cells, strict=True))


def run(options: Ideas, console: Console) -> bool:
    """Read the tables of the ablations, measure costs, and write the page; whether every idea has been tried."""
    if pick_device(options.device).type == "cpu":
        choose_allocator("fast")
    rows = []
    for name in options.ablations:
        rows += read(name, Run(f"{name}-{BASE}-seed-0").config, options)
        for row in rows:
            if row.ablation == name:
                console.print(*row.cells().values(), sep="  ", highlight=False, markup=False)
    write_text(FOUND, spelled(rows))
    path = ROOT / options.page
    prose = path.read_text(encoding="utf-8").partition(MARK)[0] if path.exists() else "# Ideas, judged\n\n"
    write_text(path, f"{prose}{MARK}\n\n" + "\n".join(section(name, rows) for name in options.ablations))
    console.print(f"written to {path}")
    return {row.idea for row in rows} == set(IDEAS)


def section(name: str, rows: Sequence[Row]) -> str:
    """The table of an ablation, in Markdown."""
    own = [row for row in rows if row.ablation == name]
    table = markdown_table(row.cells() for row in own)
    return f"## {name}\n\nThe base reaches {own[0].base:.4f} bits per byte.\n\n{table}\n"


def read(name: str, base: Config, options: Ideas) -> list[Row]:
    """The rows of an ablation, the best first."""
    table = pd.read_csv(RESULTS / name / "table.csv").set_index("variant")
    setup, found = prepare_run(override(base, {"train.name": None}), pick_device(options.device)), []
    for idea in IDEAS:
        variant = make_variants(AblationOptions(ideas=(idea,), name=name), base)[1]
        if variant.label not in table.index:
            continue
        row = table.loc[variant.label]
        more, slower = cost(idea, setup, options)
        found.append(Row(idea, name, row["difference"], row["difference_low"], row["difference_high"],
                         row["verdict"], table.loc[BASE, "bits_per_byte"], more, slower))
    return sorted(found, key=lambda row: row.difference)


def cost(idea: str, setup: Setup, options: Ideas) -> tuple[float, float]:
    """How many times the parameters and the time of a step of the base an idea takes, at the same sizes."""
    changed = copy(setup)
    changed.cfg = override(setup.cfg, IDEAS[idea].flags)
    with unfilled():
        more, count = (Model(one.cfg.model).num_parameters() for one in (changed, setup))
    ways = {"idea": timed_step(changed), "base": timed_step(setup)}
    clock = clock_of(setup.device.type)
    best = best_seconds(ways, options.rounds + 2, clock)  # the first are a warm-up
    return more / count, best["idea"] / best["base"]


def spelled(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value
                         for value in (getattr(row, column) for column in COLUMNS)])
    return text.getvalue()
