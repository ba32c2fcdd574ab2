"""The benchmark tracing: what a forward costs while it is traced, and a marked method while it is not."""

import gc
import resource
import tracemalloc
from statistics import median
from time import process_time

import torch
from rich.console import Console
from torch import nn

from config import AttentionConfig, ModelConfig, replace
from experiments.benchmarks.benchmark_options import Tracing
from model import Model
from tools import LoggingModule, log_io, shapes, trace
from tracing.render import grid

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
    rows = [["what", "measured", "x off"], ["a marked call, tracing off", f"{call_overhead():+.1f} ns", ""]]
    for name, (cfg, size) in NETS.items():
        model, x = Model(cfg), torch.randint(cfg.vocab_size, size)
        with torch.no_grad():
            times = forward_times(model, x, rounds=40 if name == "tiny" else 8)
        rows += [[f"{name} net, {mode}", f"{1e3 * time:.2f} ms", f"{time / times['off']:.2f}"]
                 for mode, time in times.items()]
    held = memory_held(Model(DEEP), torch.randint(DEEP.vocab_size, (2, 16)))
    rows.append(["held by a trace of 12 layers", f"{held / 1e6:.2f} MB", ""])
    for backend in ("sdpa", "eager"):
        cfg = replace(DEEP, **{"attention.backend": backend})
        rows.append([f"shapes(), 12 layers, {backend} attention", f"{shapes_seconds(cfg):.2f} s", ""])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = shapes(lambda: Model(BIG)).parts[""].parameters
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rows.append([f"shapes(), {count / 1e9:.2f} B parameters", f"{grown:+.0f} MB", ""])
    console.print(grid(rows, left={"what"}), markup=False, highlight=False)
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
        if options is None:
            model(x)
            return
        with trace(model, **options):
            model(x)

    best = dict.fromkeys(MODES, float("inf"))
    for _ in range(rounds):
        for mode, options in MODES.items():
            best[mode] = min(best[mode], seconds(lambda o=options: forward(o)))
    return best


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


def shapes_seconds(cfg: ModelConfig, rounds: int = 5) -> float:
    """Best seconds of building a model without data and tracing it, after a warm-up."""
    def trace_shapes() -> None:
        shapes(lambda: Model(cfg))

    trace_shapes()
    return min(seconds(trace_shapes) for _ in range(rounds))


def seconds(run, repeats: int = 1) -> float:
    """Processor time of a call, which other processes do not change."""
    start = process_time()
    for _ in range(repeats):
        run()
    return (process_time() - start) / repeats
