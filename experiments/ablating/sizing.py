"""Sizes variants to match the base: their cost as a function of width, depth, MLP width or steps."""

import bisect
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from config import Config, get, override
from experiments.ablating.ablation_options import MatchBy
from experiments.common import figures
from optimizing.schedules import Schedule
from training.flops import flops_per_token

TOLERANCE = 0.01
WIDEST = 4  # x its width or depth: the largest model tried
Cost = Callable[[Config], float]  # parameters, or FLOPs or seconds per token


def num_parameters(cfg: Config) -> int:
    return figures.num_parameters(cfg.model)


@cache
def num_flops(cfg: Config) -> float:
    """FLOPs of training on one token."""
    return flops_per_token(cfg.model, cfg.model.max_seq_len)


def schedule(cfg: Config) -> Schedule:
    """The schedule; its tokens do not depend on the size of the text, though its rate may."""
    return Schedule(cfg, rows_per_epoch=1)


def num_tokens(cfg: Config) -> int:
    """Training tokens of a run."""
    return schedule(cfg).tokens_before(cfg.train.steps)


def resized(cfg: Config, target: float, cost: Cost, by: MatchBy, *, keep_mlp: bool = False) -> dict[str, Any]:
    """The flags that bring a model's cost nearest to the target; {} if it is near enough already.

    First the width or depth changes, in steps that the heads allow, then, unless `keep_mlp`, the MLP's width for the
    remainder. Width and depth stay as they are if the MLP alone can make up for the difference.
    """
    def miss(flags: dict[str, Any]) -> float:
        return abs(math.log(cost(override(cfg, flags)) / target))

    if is_near(cost(cfg), target):
        return {}
    whole = list(sizes(cfg, by))
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
    """The MLP width that closes the gap to the target: the roundest that is near enough, or the nearest."""
    if cfg.model.mlp == "none":
        return {}
    width, found = cfg.model.hidden_width, {}
    for_each = (cost(override(cfg, hidden(2 * width))) - cost(cfg)) / width
    if for_each <= 0:  # possible for measured seconds
        return {}
    wanted = width + (target - cost(cfg)) / for_each
    for multiple in (cfg.model.hidden_multiple_of, 8, 1):
        found = hidden(max(multiple, round(wanted / multiple) * multiple))
        if is_near(cost(override(cfg, found)), target):
            break
    return found


def sizes(cfg: Config, by: MatchBy) -> Iterator[dict[str, Any]]:
    """The flags of this model at every width, the MLP in proportion, or at every depth, as far as they are allowed."""
    model = cfg.model
    if by == "mlp":
        changes = [{}]
    elif by == "depth":
        changes = [{"model.num_layers": count} for count in range(1, WIDEST * model.num_layers + 1)]
    else:
        unit = model.attention.num_heads if model.attention.head_dim is None else math.gcd(model.dim, 8)
        changes = [{"model.dim": dim} for dim in range(unit, WIDEST * model.dim + 1, unit)]
        if model.hidden_dim is not None:  # one that follows from hidden_mult is in proportion by itself
            changes = [flags | {"model.hidden_dim": max(1, round(model.hidden_dim * flags["model.dim"] / model.dim))}
                       for flags in changes]
    for flags in changes:
        with suppress(ValueError):  # e.g. an odd head_dim with rope
            override(cfg, flags)
            yield flags


def hidden(width: int) -> dict[str, Any]:
    """The flags that set the MLP's width."""
    return {"model.hidden_dim": width, "model.hidden_mult": 4.0, "model.hidden_multiple_of": 32}


def is_near(cost: float, target: float) -> bool:
    return abs(cost / target - 1) <= TOLERANCE
