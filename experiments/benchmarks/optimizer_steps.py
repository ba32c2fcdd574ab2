"""The benchmark optimizer-steps: how long steps take, compared with those of the bare libraries."""

from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from config import Config, TrainConfig, override, replace
from experiments.benchmarks.benchmark_options import OptimizerSteps
from experiments.benchmarks.gallery_table import timed_step
from experiments.benchmarks.measuring import best_seconds, clock_of
from memory_prediction.process import choose_allocator
from model import Model
from optim import OPTIMIZERS, Optimizers, make_optimizer
from presets import at_scale, load_preset
from tools import pick_device
from training.setup import prepare_run

LR, USUAL = 1e-5, "adamw"


def run(options: OptimizerSteps, console: Console) -> bool:
    """Print the time of a step of each optimizer, and of a training step with it."""
    device, kinds = pick_device(options.device), chosen(options.optimizers)
    if device.type == "cpu":
        choose_allocator("fast")
    setups = {kind: prepare_run(configured(options, kind), device) for kind in kinds}
    model = Model(setups[USUAL].cfg.model).to(device)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    makers = {kind: partial(make_optimizer, cfg=setup.cfg.train) for kind, setup in setups.items()}
    makers |= {(kind, "bare"): partial(bare, kind, decay=setup.cfg.train.decay) for kind, setup in setups.items()}
    alone = {name: partial(take_steps, make(model), options.steps, device) for name, make in makers.items()}
    clock, rounds = clock_of(device.type), options.rounds + 1  # the first is a warm-up
    steps = best_seconds(alone, rounds, clock)
    whole = best_seconds({kind: timed_step(setup) for kind, setup in setups.items()}, rounds, clock)
    table = Table("optimizer", "ms a step", "bare", "x bare", "ms a training step", f"x {USUAL}'s")
    for kind in kinds:
        own, library = steps[kind], steps[kind, "bare"]
        table.add_row(kind, *(f"{1e3 * seconds / options.steps:.2f}" for seconds in (own, library)),
                      f"{own / library:.2f}", f"{1e3 * whole[kind]:.1f}", f"{whole[kind] / whole[USUAL]:.2f}")
    console.print(table)
    return True


def chosen(words: Sequence[str]) -> list[str]:
    """The optimizers to time. Raises ValueError for a word that is none."""
    if unknown := [word for word in words if word not in OPTIMIZERS]:
        raise ValueError(f"optimizers={unknown[0]} is not an optimizer: use some of {', '.join(OPTIMIZERS)}")
    return [USUAL, *(word for word in words or OPTIMIZERS if word != USUAL)]


def configured(options: OptimizerSteps, kind: str) -> Config:
    """The preset on tales, with small batches and a small rate; beyond that an optimizer has its usual flags."""
    cfg = load_preset(options.preset)
    cfg = at_scale(cfg, options.scale) if options.scale else cfg
    train = TrainConfig(optimizer=kind, schedule="constant", lr=LR, batch_size=options.batch_size, accumulation=1,
                        precision=cfg.train.precision, objective=cfg.train.objective)
    return replace(override(cfg, {"data": {"name": "tales"}}), train=train)


def take_steps(optimizer: torch.optim.Optimizer | Optimizers, steps: int, device: torch.device) -> None:
    for _ in range(steps):
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def bare(kind: str, model: Model, *, decay: float) -> torch.optim.Optimizer | Optimizers:
    """An optimizer as its library makes it, of all parameters: no groups, no choice of kernels, but the same work."""
    from pytorch_optimizer import SOAP, Lion, ScheduleFreeAdamW  # take a second

    if kind == "muon":
        matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.dim() == 2]
        rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
        return Optimizers(torch.optim.Muon(matrices, lr=LR, weight_decay=decay),
                          torch.optim.AdamW(rest, lr=LR, weight_decay=decay))
    makers = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "adafactor": torch.optim.Adafactor, "lion": Lion,
              "soap": SOAP, "schedule_free": ScheduleFreeAdamW,
              "sgd": partial(torch.optim.SGD, momentum=0.95, nesterov=True)}
    optimizer = makers[kind](model.parameters(), lr=LR, weight_decay=decay)
    if hasattr(optimizer, "train"):  # schedule-free ones have two modes
        optimizer.train()
    return optimizer
