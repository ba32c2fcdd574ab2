"""The plan of an ablation: each variant sized to match the base, and trained on as many tokens."""

import bisect
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from config import Config, get, override, save_config, to_dict
from experiments.ablating.ablation_options import AblationOptions, MatchBy
from experiments.ablating.variants import Variant, make_variants
from experiments.common import figures
from experiments.common.caches import cached
from experiments.processes.children import Children, Task
from optimizing.schedules import Schedule
from training.flops import flops_per_token
from training.setup import Settler

TOLERANCE = 0.01
TIMINGS = 3  # measurements of each configuration; the median counts
WIDEST = 4  # x its width or depth: the largest model tried
Cost = Callable[[Config], float]  # parameters, or FLOPs or seconds per token


@dataclass(frozen=True)
class Planned:
    """A variant as it will be trained, except for the run's name and seed."""

    variant: Variant
    sizing: dict[str, Any]  # the flags that make it match the base
    cfg: Config
    parameters: int
    tokens: int
    match: float  # its cost / the base's; nan = nothing is matched


def make_plan(options: AblationOptions, base: Config, children: Children) -> list[Planned]:
    """Plan the base and its variants, and encode their texts. Raises ValueError for mistakes."""
    if base.train.time_limit is not None:
        raise ValueError(f"train.time_limit={base.train.time_limit} could end runs before they are done: leave it out")
    variants, settled = make_variants(options, base), Settler()
    configs = [settled(variant.cfg) for variant in variants]
    cost = COSTS.get(options.match) or partial(token_seconds, children=children, folder=options.folder)
    return [plan_one(options, variant, cfg, configs[0], cost) for variant, cfg in zip(variants, configs, strict=True)]


def plan_one(options: AblationOptions, variant: Variant, cfg: Config, base: Config, cost: Cost) -> Planned:
    """Size a variant; `cfg` and `base` have their vocabulary sizes."""
    sizing, by = {}, options.settled_match_by
    if by in ("width", "depth", "mlp"):
        sizing = resized(cfg, cost(base), cost, by, keep_mlp=any(".hidden_" in flag for flag in variant.flags))
        cfg = override(cfg, sizing)
    if "train.steps" not in variant.flags:
        tokens = num_tokens(base) * (cost(base) / cost(cfg) if by == "steps" else 1)
        steps = schedule(cfg).steps_for(tokens)
        sizing |= {"train.steps": steps} if steps != cfg.train.steps else {}
        cfg = override(cfg, sizing)
    longer = 1 if options.match == "params" else num_tokens(cfg) / num_tokens(base)
    return Planned(variant, sizing, evaluated_alike(cfg, base), num_parameters(cfg), num_tokens(cfg),
                   cost(cfg) / cost(base) * longer)


def evaluated_alike(cfg: Config, base: Config) -> Config:
    """The configuration with a last evaluation on as many tokens as the base's, however long it trains."""
    share, tokens = base.train.final_eval_share, num_tokens(cfg)
    if None in (share, cfg.train.eval_tokens) or cfg.train.final_eval_share != share or tokens == num_tokens(base):
        return cfg
    return override(cfg, {"train.final_eval_share": share * num_tokens(base) / tokens})


def token_seconds(cfg: Config, *, children: Children, folder: Path) -> float:
    """Seconds of training per token, measured alone and once for each configuration.

    Raises ValueError if the measuring process fails.
    """
    key = hashlib.sha256(json.dumps(to_dict(override(cfg, {"train.steps": 1}))).encode()).hexdigest()[:16]
    seconds = cached(folder / "timing.json", key, lambda: statistics.median(
        time_steps(cfg, key, children, folder / "logs") for _ in range(TIMINGS)))
    return seconds / (cfg.train.batch_size * cfg.train.accumulation * cfg.row_len)


def time_steps(cfg: Config, name: str, children: Children, logs: Path) -> float:
    """Seconds of a step, measured in a process of its own."""
    config, result, log = (logs / f"timing-{name}.{kind}" for kind in ("config.json", "json", "txt"))
    save_config(cfg, config)
    task = Task(name, "experiments.processes.step_timing:main", (str(config), "fast", str(result)), log)
    ((_, status),) = children.run([task], jobs=1)
    if status:
        raise ValueError(f"match=seconds: the speed of a variant could not be measured; {log} says why")
    return json.loads(result.read_text(encoding="utf-8"))["step_seconds"]


# ---- costs and sizes ----


def num_parameters(cfg: Config) -> int:
    return figures.num_parameters(cfg.model)


@cache
def num_flops(cfg: Config) -> float:
    """FLOPs of training on one token."""
    return flops_per_token(cfg)


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


COSTS: dict[str, Callable[[Config], float]] = {
    "params": num_parameters, "flops": num_flops, "none": lambda _: math.nan}
