"""The benchmark tracing: what a forward costs while it is traced, and a marked method while it is not."""

import gc
import resource
import tracemalloc
from contextlib import nullcontext
from functools import partial
from statistics import median
from time import process_time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from config import AttentionConfig, ModelConfig, replace
from experiments.benchmarks.benchmark_options import Tracing
from experiments.benchmarks.measuring import best_seconds
from model import Model
from tools import LoggingModule, log_io, shapes, trace

EAGER = AttentionConfig(backend="eager")
NETS = {
    "tiny": (ModelConfig(vocab_size=65, dim=64, num_layers=4), (2, 16)),
    "base": (ModelConfig(vocab_size=512, dim=256, num_layers=8, attention=AttentionConfig(num_heads=8)), (8, 256)),
}
MODES = {"off": None, "shapes only": {"stats": "none"}, "basic": {}, "full": {"stats": "full"}}
DEEP = ModelConfig(vocab_size=65, dim=64, num_layers=12, attention=EAGER)
BIG = ModelConfig(vocab_size=50_000, dim=2048, num_layers=18, attention=replace(EAGER, num_heads=16))


def run(options: Tracing, console: Console) -> bool:
    """Print the table: calls without a trace, forwards in each mode, memory, shapes()."""
    torch.set_num_threads(1)
    table = Table("what", "measured", "x off")
    table.add_row("a marked call, tracing off", f"{call_overhead():+.1f} ns")
    for name, (cfg, size) in NETS.items():
        model, x = Model(cfg), torch.randint(cfg.vocab_size, size)
        with torch.no_grad():
            times = forward_times(model, x, rounds=40 if name == "tiny" else 8)
        for mode, seconds in times.items():
            table.add_row(f"{name} net, {mode}", f"{1e3 * seconds:.2f} ms", f"{seconds / times['off']:.2f}")
    held = memory_held(Model(DEEP), torch.randint(DEEP.vocab_size, (2, 16)))
    table.add_row("held by a trace of 12 layers", f"{held / 1e6:.2f} MB")
    ways = {backend: partial(shapes, partial(Model, replace(DEEP, **{"attention.backend": backend})))
            for backend in ("sdpa", "eager")}
    for backend, seconds in best_seconds(ways, rounds=6).items():  # the first is a warm-up
        table.add_row(f"shapes(), 12 layers, {backend} attention", f"{seconds:.2f} s")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = shapes(lambda: Model(BIG)).parts[""].parameters
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    table.add_row(f"shapes(), {count / 1e9:.2f} B parameters", f"{grown:+.0f} MB")
    console.print(table)
    return True


class Marked(LoggingModule):
    @log_io("b t -> b t")
    def marked(self, x):
        return x

    def plain(self, x):
        return x


def call_overhead(rounds: int = 15, calls: int = 300_000) -> float:
    """Nanoseconds that a mark adds to a call: the median of interleaved rounds."""
    module, x = Marked(), torch.ones(1, 1)
    differences = []
    for _ in range(rounds):
        times = []
        for method in (module.plain, module.marked):
            start = process_time()
            for _ in range(calls):
                method(x)
            times.append((process_time() - start) / calls)
        differences.append(1e9 * (times[1] - times[0]))
    return median(differences)


def forward_times(model: nn.Module, x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Best seconds of a forward in each mode, the `with` block included, interleaved."""
    def forward(options: dict | None) -> None:
        with nullcontext() if options is None else trace(model, **options):
            model(x)

    return best_seconds({mode: partial(forward, options) for mode, options in MODES.items()}, rounds)


def memory_held(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a finished trace holds."""
    with trace(model):
        model(x)
    gc.collect()
    tracemalloc.start()
    with trace(model) as t:
        model(x)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert t.calls
    return held
