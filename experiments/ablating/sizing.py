"""Variants of one size: what makes a configuration cost as much as another, by its width, its depth or its steps."""

import bisect
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from config import Config, override
from experiments.ablating.ablation_options import MatchBy
from experiments.ablating.variants import get
from model import Model, flops_per_token
from optimizing.schedules import Schedule

TOLERANCE = 0.01
WIDEST = 4  # x the base's width or depth, up to which a match is looked for
Cost = Callable[[Config], float]  # parameters; FLOPs or seconds for each token


@cache
def num_parameters(cfg: Config) -> int:
    with torch.device("meta"):
        return Model(cfg.model).num_parameters()


@cache
def num_flops(cfg: Config) -> float:
    """Of training on one token."""
    return flops_per_token(cfg.model, cfg.model.max_seq_len)


def num_tokens(cfg: Config) -> int:
    """All that a run is trained on."""
    return _schedule(cfg).tokens_before(cfg.train.steps)


def steps_for(cfg: Config, tokens: float) -> int:
    """The steps that come nearest to so many tokens."""
    most = math.ceil(tokens / (cfg.train.batch_size * cfg.model.max_seq_len)) + 1
    schedule = _schedule(override(cfg, {"train.steps": most}))
    after = bisect.bisect_left(range(most), tokens, key=schedule.tokens_before)
    return min((max(1, after - 1), max(1, after)), key=lambda steps: abs(schedule.tokens_before(steps) - tokens))


def resized(cfg: Config, target: float, cost: Cost, by: MatchBy, *, keep_mlp: bool = False) -> dict[str, Any]:
    """The flags of the model that bring its cost nearest to the target; {} = it is near enough as it is.

    First the whole model, in steps that its heads allow, then, unless `keep_mlp`, the MLP's width for the remainder.
    A model whose MLP alone can make up for the difference to the next step keeps its width and depth.
    """
    def miss(flags: dict[str, Any]) -> float:
        return abs(math.log(cost(override(cfg, flags)) / target))

    if is_near(cost(cfg), target):
        return {}
    whole = {"width": widths, "depth": depths, "mlp": lambda _: [{}]}[by](cfg)
    place = bisect.bisect_left(whole, target, key=lambda flags: cost(override(cfg, flags)))
    found = []
    for flags in sorted(whole[max(0, place - 1) : place + 1],
                        key=lambda flags: (override(cfg, flags) != cfg, miss(flags))):
        remainder = {} if keep_mlp else with_remainder(override(cfg, flags), target, cost)
        found.append(flags | remainder)
        if miss(found[-1]) <= math.log1p(TOLERANCE):
            break
    return {flag: value for flag, value in min(found, key=miss).items() if value != get(cfg, flag)}


def with_remainder(cfg: Config, target: float, cost: Cost) -> dict[str, Any]:
    """The MLP's width that makes up for what is missing: the roundest that is near enough, or the nearest."""
    if cfg.model.mlp == "none":
        return {}
    width, found = cfg.model.hidden_width, {}
    for_each = (cost(override(cfg, hidden(2 * width))) - cost(cfg)) / width
    if for_each <= 0:  # measured seconds may say so
        return {}
    wanted = width + (target - cost(cfg)) / for_each
    for multiple in (cfg.model.hidden_multiple_of, 8, 1):
        found = hidden(max(multiple, round(wanted / multiple) * multiple))
        if is_near(cost(override(cfg, found)), target):
            break
    return found


def widths(cfg: Config) -> list[dict[str, Any]]:
    """The flags of every model of this kind, from narrow to wide, with its MLP in proportion."""
    model = cfg.model
    unit = model.num_heads if model.head_dim is None else math.gcd(model.dim, 8)
    dims = range(unit, WIDEST * model.dim + 1, unit)
    return list(_allowed(cfg, ({"model.dim": dim} | _scaled_hidden(cfg, dim) for dim in dims)))


def depths(cfg: Config) -> list[dict[str, Any]]:
    """The flags of every model of this kind, from shallow to deep."""
    return list(_allowed(cfg, ({"model.num_layers": count} for count in range(1, WIDEST * cfg.model.num_layers + 1))))


def hidden(width: int) -> dict[str, Any]:
    """The flags of an MLP's width."""
    return {"model.hidden_dim": width, "model.hidden_mult": 4.0, "model.hidden_multiple_of": 32}


def is_near(cost: float, target: float) -> bool:
    return abs(cost / target - 1) <= TOLERANCE


def _scaled_hidden(cfg: Config, dim: int) -> dict[str, Any]:
    """A width that is given grows with the model; one that follows from hidden_mult does so by itself."""
    if cfg.model.hidden_dim is None:
        return {}
    return {"model.hidden_dim": max(1, round(cfg.model.hidden_dim * dim / cfg.model.dim))}


def _allowed(cfg: Config, changes: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for flags in changes:
        try:
            override(cfg, flags)
        except ValueError:  # e.g. rope, which turns pairs
            continue
        yield flags


def _schedule(cfg: Config) -> Schedule:
    """Its tokens do not depend on the text, whose size its rate may follow."""
    return Schedule(cfg, rows_per_epoch=1)
