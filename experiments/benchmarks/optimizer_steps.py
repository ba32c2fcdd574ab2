"""The benchmark optimizer-steps: how long a step takes, compared with torch's own AdamW and Muon."""

from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from config import TrainConfig, replace
from experiments.benchmarks.benchmark_options import OptimizerSteps
from experiments.benchmarks.measuring import best_seconds, clock_of
from model import Model
from optim import OPTIMIZERS, Optimizers, make_optimizer
from presets import load_preset
from tools import pick_device

LR = 1e-5


def run(options: OptimizerSteps, console: Console) -> bool:
    """Print the time of a step of each optimizer."""
    device = pick_device(options.device)
    model_cfg = load_preset(options.preset).model
    model = Model(replace(model_cfg, vocab_size=model_cfg.vocab_size or options.vocab_size)).to(device)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    makers = {"torch: AdamW": torch_adamw, "torch: Muon and AdamW": torch_muon}
    makers |= {kind: partial(make_optimizer, cfg=TrainConfig(optimizer=kind, schedule="constant", lr=LR))
               for kind in OPTIMIZERS}
    ways = {name: partial(take_steps, make(model), options.steps, device) for name, make in makers.items()}
    clock = clock_of(device.type)
    best = best_seconds(ways, options.rounds + 1, clock)  # the first is a warm-up
    table = Table("optimizer", "ms a step", "x torch's AdamW")
    for name, seconds in best.items():
        table.add_row(name, f"{1e3 * seconds / options.steps:.2f}", f"{seconds / best['torch: AdamW']:.2f}")
    console.print(table)
    return True


def take_steps(optimizer: torch.optim.Optimizer | Optimizers, steps: int, device: torch.device) -> None:
    for _ in range(steps):
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def torch_adamw(model: Model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR)


def torch_muon(model: Model) -> Optimizers:
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if name.startswith("blocks.") and parameter.dim() == 2 else rest).append(parameter)
    return Optimizers(torch.optim.Muon(matrices, lr=LR), torch.optim.AdamW(rest, lr=LR))
