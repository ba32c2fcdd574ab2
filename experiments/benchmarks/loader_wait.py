"""`python experiments/benchmark.py loader`: how much of a training step waits for its batch."""

import time
from dataclasses import dataclass
from statistics import mean, median
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from config import Config, Packing, override
from corpora.corpus import load_corpus
from corpora.shards import prepare
from data import Batch, Batches, prefetched
from model import Model
from optim import make_optimizer
from presets import load_preset
from tools import pick_device, seed_everything
from train import choose_tokenizer, fit_vocabulary


class SlowBatches(Batches):
    """Batches from a slow disk: each takes `read_ms` more."""

    read_ms: float

    def __getitem__(self, step: int) -> Batch:
        time.sleep(self.read_ms / 1e3)
        return super().__getitem__(step)


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Train on generated stories and tell how long a step waits for its batch, for each packing.

    With 0 batches ahead of time the step makes its batch itself, else a thread does while the last step runs.
    Medians over the steps.
    """

    preset: str = "default"  # the model, and its batch size
    steps: int = 30  # of each measurement; one more goes before, and is not counted
    stories: int = 3000  # to train on, about 170 tokens each
    max_seq_len: int = 512  # tokens a row
    prefetch: tuple[int, ...] = (0, 2)  # batches ahead
    read_ms: float = 0.0  # more time for each batch, as on a slow disk
    device: str = "auto"  # auto = cuda, else mps, else cpu

    def run(self, console: Console) -> bool:
        cfg = override(load_preset(self.preset), {"data.name": "tales", "data.num_stories": self.stories,
                                                    "model.max_seq_len": self.max_seq_len})
        corpus = load_corpus(cfg.data)
        tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
        cfg = fit_vocabulary(cfg, tokenizer)
        parts, _ = prepare(corpus, tokenizer, cfg.data.cache_path, console=console)
        table = Table("packing", "ahead", "waits, us a step", "a step, ms", "share", "padding")
        for packing in get_args(Packing):
            batches = SlowBatches(parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len,
                                  packing=packing)
            batches.read_ms = self.read_ms
            for depth in self.prefetch:
                waited, seconds, targets = self.measure(cfg, batches, depth)
                padding = 1 - targets / (cfg.train.batch_size * cfg.model.max_seq_len)
                table.add_row(packing, str(depth), f"{1e6 * waited:.0f}", f"{1e3 * seconds:.1f}",
                              f"{waited / seconds:.2%}", f"{padding:.1%}")
        console.print(table)
        return True

    def measure(self, cfg: Config, batches: Batches, depth: int) -> tuple[float, float, float]:
        """(seconds that a step waits, its seconds, targets it learns from)."""
        device = pick_device(self.device)
        seed_everything(0)
        model = Model(cfg.model).to(device)
        optimizer = make_optimizer(model, cfg.train)
        waits, seconds, targets = [], [], []
        with prefetched(batches, range(self.steps + 1), depth=depth, pin=device.type == "cuda") as coming:
            for _ in range(self.steps + 1):
                began = time.perf_counter()
                batch = next(coming).to(device)
                waits.append(time.perf_counter() - began)
                model(batch.x, batch.y, documents=batch.documents).backward()
                optimizer.step()
                optimizer.zero_grad()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - began)
                targets.append(batch.num_targets)
        return median(waits[1:]), median(seconds[1:]), mean(targets[1:])
