"""The benchmark tokens-to-loss: how many training tokens a recipe needs to reach a validation loss."""

import math
import time
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from config import override
from experiments.benchmarks.benchmark_options import TokensToLoss
from model import Model
from optim import roles
from presets import load_preset
from tools import pick_device
from training.setup import prepare_run


def run(options: TokensToLoss, console: Console) -> bool:
    """Print a row for each recipe and seed; whether all have reached the target."""
    if options.seeds < 1:
        raise ValueError(f"seeds={options.seeds} must be 1 or more")
    table = Table("recipe", "weights", "in tables", "seed", "tokens to target", "final loss", "tokens", "seconds")
    reached = True
    for preset in options.presets:
        for seed in range(options.seeds):
            run = train(options, preset, seed, console)
            first = next((tokens for tokens, loss in run.curve if loss <= options.target), None)
            tokens, loss = run.curve[-1]
            table.add_row(preset, f"{run.weights:,}", f"{run.tables:,}", str(seed),
                          f"{first:,}" if first else "not reached", f"{loss:.4f}", f"{tokens:,}", f"{run.seconds:.0f}")
            reached &= first is not None
    console.print(table)
    return reached


class Trained(NamedTuple):
    """What the training of a recipe gave."""

    curve: list[tuple[int, float]]  # (tokens, validation loss) at each evaluation
    seconds: float  # without the evaluations
    weights: int  # parameters that are no tables
    tables: int  # parameters of tables, of which a token reads a row: embeddings, of values and n-grams too


def train(options: TokensToLoss, preset: str, seed: int, console: Console) -> Trained:
    """Train a recipe, with an evaluation on the whole validation part at each of `options.evaluations` steps."""
    flags = {"data.name": options.data, "train.seed": seed}
    flags |= {"train.tokens": options.budget} if options.budget else {}
    setup = prepare_run(override(load_preset(preset), flags), pick_device(options.device))
    state, cfg, schedule = setup.make_state(), setup.cfg, setup.schedule
    points = {math.ceil(cfg.train.steps * (i + 1) / options.evaluations) for i in range(options.evaluations)}
    curve, seconds = [], 0.0
    for step in range(cfg.train.steps):
        began = time.perf_counter()
        taken = [setup.batches[number].to(state.device) for number in schedule.passes(step)]
        state.step(taken, number=step + 1, lr=schedule.rate(step), noise=[])
        seconds += time.perf_counter() - began
        if step + 1 in points:
            state.optimizer.eval()
            loss = setup.evaluate(state.objective).loss
            curve.append((schedule.tokens_before(step + 1), loss))
            console.print(f"{preset} seed {seed}: {curve[-1][0]:9,} tokens  validation loss {loss:.4f}")
    return Trained(curve, seconds, *count(state.model))


def count(model: Model) -> tuple[int, int]:
    """The parameters of a model that are no tables, and those of tables. A table that is the head too is none."""
    role_of, head = roles(model), model.head.unembed.weight
    tables = sum(parameter.numel() for name, parameter in model.named_parameters()
                 if role_of[name] == "embedding" and parameter is not head)
    return sum(parameter.numel() for parameter in model.parameters()) - tables, tables
