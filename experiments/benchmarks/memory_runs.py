"""The benchmark memory --runs: the range that train.py announces, compared with the peak of the same process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from config import Config, override, save_config
from experiments.benchmarks.memory_cases import RUN, RUN_CHOICES, drawn_cases
from memory_prediction.prediction import predict
from run_store.listing import ROOT
from training.flops import flops_per_token

MB = 2**20
LARGEST = 1500 * MB  # of drawn runs
LONGEST = 1.5e12  # FLOPs of drawn runs
IN_RANGE, ABOVE = 0.9, 0.05  # share of the runs in their range, at least; the worst peak above a range, at most


class RunOutcome(NamedTuple):
    """What train.py wrote to a run's memory.json, in bytes."""

    name: str
    low: int
    high: int
    peak: int

    @property
    def is_in_range(self) -> bool:
        return self.low <= self.peak <= self.high

    @property
    def above(self) -> float:
        """How far the peak is above the upper end, as a share of it; negative = below."""
        return self.peak / self.high - 1

    def cells(self) -> list[str]:
        verdict = "in range" if self.is_in_range else f"{self.above:+.1%} of high" if self.above > 0 else \
            f"{self.peak / self.low - 1:+.1%} of low"
        return [self.name, *(f"{size / MB:.0f}" for size in (self.low, self.high, self.peak)), verdict]


def run(count: int, seed: int, console: Console) -> bool:
    """Train `count` drawn runs, one after the other; whether their peaks lie in their ranges often enough."""
    table = Table("run", "low, MB", "high, MB", "peak, MB", "")
    outcomes = []
    for number, cfg in enumerate(islice(suitable_runs(seed), count)):
        outcomes.append(train_and_read(cfg, f"{seed}.{number}{' compiled' * cfg.train.compile}"))
        table.add_row(*outcomes[-1].cells())
        console.print(", ".join(outcomes[-1].cells()), highlight=False)
    console.print(table)
    return check(outcomes, console)


def suitable_runs(seed: int) -> Iterator[Config]:
    """Drawn runs whose size and length suit this machine."""
    for cfg in drawn_cases(seed, RUN_CHOICES, RUN):
        tokens = cfg.train.steps * cfg.train.accumulation * cfg.train.batch_size * cfg.model.max_seq_len
        sized = override(cfg, {"model.vocab_size": cfg.model.vocab_size or 4096})
        if (tokens * flops_per_token(sized) < LONGEST
                and predict(sized).low_bytes < LARGEST):
            yield cfg


def train_and_read(cfg: Config, name: str) -> RunOutcome:
    """Train a run in a process of its own. Raises ValueError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        save_config(cfg, Path(folder) / "config.json")
        done = subprocess.run(
            [sys.executable, ROOT / "train.py", "--config", f"{folder}/config.json", "--train.name", "run"],
            env=os.environ | {"SHAPESHIFTER_MODELS": folder}, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"the run {name} failed with exit status {done.returncode}:\n{done.stderr[-2000:]}")
        found = json.loads((Path(folder) / "run" / "memory.json").read_text())
    return RunOutcome(name, found["predicted_low_bytes"], found["predicted_high_bytes"], found["peak_bytes"])


def check(outcomes: list[RunOutcome], console: Console) -> bool:
    """Print the two figures; whether both are as good as claimed."""
    inside, worst = sum(o.is_in_range for o in outcomes), max(o.above for o in outcomes)
    width = sorted(o.high / o.low for o in outcomes)[len(outcomes) // 2]
    reached = inside >= IN_RANGE * len(outcomes) and worst <= ABOVE
    console.print(f"in range: {inside} of {len(outcomes)}, worst above the upper end: {max(worst, 0):.1%}, "
                  f"median high / low: {width:.2f}: {'ok' if reached else '[red]missed[/]'}", highlight=False)
    return reached
