"""The benchmark loader: how much of a training step waits for its batch."""

import time
from statistics import mean, median
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from config import Packing, override
from data import Batch, Batches, prefetched
from experiments.benchmarks.benchmark_options import Loader
from presets import load_preset
from tools import pick_device
from training.setup import Setup, prepare_run


class SlowBatches(Batches):
    """Batches from a slow disk: each takes `read_ms` longer."""

    read_ms: float

    def __getitem__(self, step: int) -> Batch:
        time.sleep(self.read_ms / 1e3)
        return super().__getitem__(step)


def run(options: Loader, console: Console) -> bool:
    """Print a row for each packing and number of batches ahead."""
    setup = prepare_run(override(load_preset(options.preset), {
        "data.name": "tales", "data.num_stories": options.stories, "model.max_seq_len": options.max_seq_len}),
        pick_device(options.device))
    cfg = setup.cfg
    table = Table("packing", "ahead", "waits, us a step", "a step, ms", "share", "padding")
    for packing in get_args(Packing):
        batches = SlowBatches(setup.train_parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len,
                              packing=packing)
        batches.read_ms = options.read_ms
        for depth in options.prefetch:
            waited, seconds, targets = measure(options, setup, batches, depth)
            padding = 1 - targets / (cfg.train.batch_size * cfg.model.max_seq_len)
            table.add_row(packing, str(depth), f"{1e6 * waited:.0f}", f"{1e3 * seconds:.1f}", f"{waited / seconds:.2%}",
                          f"{padding:.1%}")
    console.print(table)
    return True


def measure(options: Loader, setup: Setup, batches: Batches, depth: int) -> tuple[float, float, float]:
    """(seconds that a step waits, its seconds, targets it learns from)."""
    device, state = setup.device, setup.make_state()
    waits, seconds, targets = [], [], []
    with prefetched(batches, range(options.steps + 1), depth=depth, pin=device.type == "cuda") as coming:
        for _ in range(options.steps + 1):
            began = time.perf_counter()
            batch = next(coming).to(device)
            waits.append(time.perf_counter() - began)
            state.objective(batch).total.backward()
            state.optimizer.step()
            state.optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            targets.append(batch.num_targets)
    return median(waits[1:]), median(seconds[1:]), mean(targets[1:])
