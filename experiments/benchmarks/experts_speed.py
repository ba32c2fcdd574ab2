"""The benchmark experts: what it costs to choose among experts, at the same active size."""

from rich.console import Console
from rich.table import Table

from config import Config, override
from experiments.benchmarks.benchmark_options import Experts
from experiments.benchmarks.gallery_table import timed_step
from experiments.benchmarks.measuring import best_seconds, clock_of
from memory_prediction.process import choose_allocator
from model import idle_parameters
from tools import pick_device
from training.setup import prepare_run

MEASURED, LEAST = 16, 0.6  # experts, and the tokens/s of a mixture of so many compared with a dense model's


def run(options: Experts, console: Console) -> bool:
    """Whether the mixture of 16 experts is fast enough."""
    device = pick_device(options.device)
    if device.type == "cpu":
        choose_allocator("fast")
    flags = {"dense": {"mlp": "glu", "hidden_dim": options.top_k * options.hidden_dim}} | {
        f"{number} experts": {"mlp": "moe", "hidden_dim": options.hidden_dim, "moe.num_experts": number,
                              "moe.top_k": options.top_k, "moe.balance_bias": True} for number in options.experts}
    steps = {name: timed_step(prepare_run(configured(options, model), device)) for name, model in flags.items()}
    clock = clock_of(device.type)
    best = best_seconds(steps, options.rounds + 2, clock)  # the first are a warm-up
    table = Table("model", "parameters", "active", "in blocks, active", "ms a step", "tokens/s, x dense")
    for name, step in steps.items():
        model = step.func.__self__.model
        total, idle = model.num_parameters(), idle_parameters(model)
        blocks = sum(parameter.numel() for parameter in model.blocks.parameters()) - idle
        table.add_row(name, f"{total:,}", f"{total - idle:,}", f"{blocks:,}", f"{1e3 * best[name]:,.0f}",
                  f"{best['dense'] / best[name]:.2f}")
    console.print(table)
    return best["dense"] >= LEAST * best.get(f"{MEASURED} experts", 0.0)


def configured(options: Experts, model: dict) -> Config:
    sizes = {"dim": options.dim, "num_layers": options.num_layers, "attention.num_heads": options.dim // 64}
    return override(Config(), {"model": sizes | model, "train": {"precision": options.precision, "steps": 100,
                                                                 "optimizer": options.optimizer}})
