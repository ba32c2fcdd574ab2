"""Train a model at several sizes for a few steps, and measure the numbers in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn

from config import Config, ModelConfig, override
from configuration.command_line import print_line
from configuration.scaling import at_dim
from data import Batch
from experiments.coordinates.check_options import CheckOptions
from modules.attend import Kernel, for_each_query_head
from modules.scaling import fans_of
from modules.stream import Stream
from optim import roles
from tools import pick_device
from training.setup import Setup, prepare_run
from training.step import TrainState

SCORES, LOGITS, MATRICES = "attention's scores", "logits", "matrices, spectral"
SIZE, CHANGE = "size", "change"


def measure(options: CheckOptions, cfg: Config, axis: str, console: Console) -> pd.DataFrame:
    """A row for each number: scaling, size of the model, seed, place in it, kind ("size" or "change") and value.

    A size is the mean of |x| after the last step on a batch of the training, a change the mean of |x - x_0|, with x_0
    before the first step. Of matrices it is the spectral norm of the change, divided by sqrt(outputs / inputs).
    """
    models = {(scaling, size): at(cfg.model, scaling, axis, size) for scaling in options.scalings
              for size in options.sizes(axis)}
    setup = prepare_run(override(cfg, {"train.steps": options.steps}), pick_device(cfg.train.device), console=console)
    rows = []
    for (scaling, size), model in models.items():
        print_line(console, f"{scaling}: {axis} {size:,}")
        for seed in range(cfg.train.seed, cfg.train.seed + options.seeds):
            one = override(setup.cfg, {"model": vocabulary_of(setup, model), "train.seed": seed})
            found = coordinates(replace(setup, cfg=one))
            rows += [{"scaling": scaling, axis: size, "seed": seed, "place": place, "kind": kind, "value": value}
                     for (place, kind), value in found.items()]
    return pd.DataFrame(rows)


def at(cfg: ModelConfig, scaling: str, axis: str, size: int) -> ModelConfig:
    """A model with a scaling, at a width or with so many layers."""
    unused = {"standard": {"base_dim": 128, "base_layers": 3}, "mup": {"base_layers": 3}, "completep": {}}[scaling]
    cfg = override(cfg, {"scaling": scaling} | unused)
    return at_dim(cfg, size) if axis == "width" else override(cfg, {"num_layers": size})


def vocabulary_of(setup: Setup, cfg: ModelConfig) -> ModelConfig:
    """A model with the vocabulary of the text."""
    settled = setup.cfg.model
    return override(cfg, {"vocab_size": settled.vocab_size, "engram.eos_id": settled.engram.eos_id})


def coordinates(setup: Setup) -> dict[tuple[str, str], float]:
    """Train a model; its numbers by place and kind, in the order in which they arise."""
    state, schedule = setup.make_state(), setup.schedule
    batch = setup.batches[0].to(state.device)
    before, weights = seen(state, batch), {name: p.detach().clone() for name, p in matrices(state.model).items()}
    for step in range(setup.cfg.train.steps):
        taken = [setup.batches[number].to(state.device) for number in schedule.passes(step)]
        state.step(taken, number=step + 1, lr=schedule.rate(step), noise=[])
    state.optimizer.eval()
    after = seen(state, batch)
    found = {(place, SIZE): x.abs().mean().item() for place, x in after.items()}
    found |= {(place, CHANGE): (x - before[place]).abs().mean().item() for place, x in after.items()}
    return found | {(MATRICES, CHANGE): spectral_change(state.model, weights)}


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """The matrices inside the blocks, by their names: stacks of them too."""
    role_of = roles(model)
    return {name: p for name, p in model.named_parameters() if name.startswith("blocks.") and role_of[name] == "matrix"}


@torch.no_grad()
def spectral_change(model: nn.Module, before: dict[str, Tensor]) -> float:
    """The mean over matrices of the spectral norm of their change / sqrt(outputs / inputs)."""
    found, fans = [], fans_of(model)
    for name, parameter in matrices(model).items():
        norms = torch.linalg.matrix_norm((parameter - before[name]).float(), ord=2)
        found.append(norms.mean().item() * (fans[name].inputs / fans[name].outputs) ** 0.5)
    return sum(found) / max(1, len(found))


@torch.no_grad()
def seen(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """What the blocks, attention and the head give on a batch, by place."""
    found: dict[str, Tensor] = {}
    random = torch.get_rng_state()
    with watched(state.model, found):
        torch.manual_seed(0)  # the objective may draw what it hides: the same before and after
        state.objective(batch)
    torch.set_rng_state(random)
    return found


@contextmanager
def watched(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    """Inside, note what the blocks, attention and the head of a model give."""
    hooks = [block.register_forward_hook(partial(note, found, f"block {number}"))
             for number, block in enumerate(model.blocks, start=1)]
    hooks += [part.register_forward_hook(partial(note_scores, found)) for part in model.blocks.modules()
              if isinstance(part, Kernel)]
    hooks += [model.head.register_forward_hook(partial(note, found, LOGITS))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def note(found: dict[str, Tensor], place: str, module: nn.Module, args: Any, result: Tensor | Stream) -> None:
    found[place] = (result.x if isinstance(result, Stream) else result).float()


def note_scores(found: dict[str, Tensor], kernel: Kernel, args: tuple, result: Tensor) -> None:
    """The scores of all queries and keys, those of all layers beside each other."""
    q, k = args[:2]
    scores = kernel.scores(q, for_each_query_head(q, k, k)[0]).float().flatten()
    found[SCORES] = torch.cat([found[SCORES], scores]) if SCORES in found else scores


