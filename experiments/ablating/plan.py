"""The plan of an ablation: each variant sized to match the base, and trained on as many tokens."""

import hashlib
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from config import Config, override, save_config, to_dict
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.sizing import Cost, num_flops, num_parameters, num_tokens, resized, schedule
from experiments.ablating.variants import Variant, make_variants
from experiments.common.caches import cached
from experiments.processes.children import Children, Task
from training.setup import Settler

TIMINGS = 3  # measurements of each configuration; the median counts


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
    return Planned(variant, sizing, cfg, num_parameters(cfg), num_tokens(cfg), cost(cfg) / cost(base) * longer)


def token_seconds(cfg: Config, *, children: Children, folder: Path) -> float:
    """Seconds of training per token, measured alone and once for each configuration.

    Raises ValueError if the measuring process fails.
    """
    key = hashlib.sha256(json.dumps(to_dict(override(cfg, {"train.steps": 1}))).encode()).hexdigest()[:16]
    seconds = cached(folder / "timing.json", key, lambda: statistics.median(
        time_steps(cfg, key, children, folder / "logs") for _ in range(TIMINGS)))
    return seconds / (cfg.train.batch_size * cfg.train.accumulation * cfg.model.max_seq_len)


def time_steps(cfg: Config, name: str, children: Children, logs: Path) -> float:
    """Seconds of a step, measured in a process of its own."""
    config, result, log = (logs / f"timing-{name}.{kind}" for kind in ("config.json", "json", "txt"))
    save_config(cfg, config)
    task = Task(name, "experiments.processes.step_timing:main", (str(config), "fast", str(result)), log)
    ((_, status),) = children.run([task], jobs=1)
    if status:
        raise ValueError(f"match=seconds: the speed of a variant could not be measured; {log} says why")
    return json.loads(result.read_text(encoding="utf-8"))["step_seconds"]


COSTS: dict[str, Callable[[Config], float]] = {
    "params": num_parameters, "flops": num_flops, "none": lambda _: math.nan}
