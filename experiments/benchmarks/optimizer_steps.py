"""The benchmark optimizer-steps: how long a step takes, compared with torch's own AdamW and Muon."""

import math
import time
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from config import TrainConfig, replace
from experiments.benchmarks.benchmark_options import OptimizerSteps
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
    optimizers = {name: make(model) for name, make in makers.items()}
    best = dict.fromkeys(makers, math.inf)
    for _ in range(options.rounds + 1):  # the first is a warm-up
        for name, optimizer in optimizers.items():
            best[name] = min(best[name], step_seconds(optimizer, options.steps, device))
    table = Table("optimizer", "ms a step", "x torch's AdamW")
    for name, seconds in best.items():
        table.add_row(name, f"{1e3 * seconds:.2f}", f"{seconds / best['torch: AdamW']:.2f}")
    console.print(table)
    return True


def step_seconds(optimizer: torch.optim.Optimizer | Optimizers, steps: int, device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    for _ in range(steps):
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / steps


def torch_adamw(model: Model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR)


def torch_muon(model: Model) -> Optimizers:
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if name.startswith("blocks.") and parameter.dim() == 2 else rest).append(parameter)
    return Optimizers(torch.optim.Muon(matrices, lr=LR), torch.optim.AdamW(rest, lr=LR))
