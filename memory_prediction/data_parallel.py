"""The memory of one of several processes that train a run together, from that of a process with its rows of the batch.

Of copies (DistributedDataParallel) each process has everything, and its gradients lie in the buckets that are sent,
which are kept. With train.shard (FSDP2) each has its part of what lasts, and in a step for a while what it gathers:
what is outside the blocks, the block that computes, the next one, and what is being sent of one more.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from config import Config
from memory_prediction.dry_run import Breakdown, Breakdowns
from model import Model
from modules.block import own_blocks

LASTING = ("weights", "optimizer", "average")
GATHERING, REDUCING = ("step", "forward", "backward", "evaluation"), ("step", "backward")  # phases


def of_each(breakdowns: Breakdowns, cfg: Config, processes: int) -> Breakdowns:
    """The breakdowns of the first process, which holds most; `breakdowns` are of one process with as many rows."""
    outside, block, total = sizes(cfg)
    if not cfg.train.shard:
        return {where: found if where[0] == "build" else with_more(
            found, gradients=total - sums(found)["gradients"]) for where, found in breakdowns.items()}
    each = {}
    for where, found in breakdowns.items():
        weights = (outside + 3 * block) * (where[0] in GATHERING) + total * (where[0] == "sampling")
        gradients = (outside + 2 * block) * (where[0] in REDUCING)
        each[where] = found if where[0] == "build" else with_more(
            divided(found, processes), weights=weights, gradients=gradients)
    return each


def checkpoint_bytes(breakdowns: Breakdowns, cfg: Config, processes: int) -> int:
    """The bytes of the copy that is written while training goes on; `breakdowns` are of one process.

    It is of what lasts. Of several processes with train.shard each copies its part, and the first, which writes, puts
    one tensor together at a time.
    """
    whole = sums(breakdowns["evaluation", ""])
    lasting = sum(whole[name] for name in LASTING)
    if processes == 1 or not cfg.train.shard:
        return lasting
    with torch.device("meta"):
        model = Model(cfg.model)
    return lasting // processes + max(p.nbytes for p in model.parameters())


def sizes(cfg: Config) -> tuple[int, int, int]:
    """The bytes of the weights outside the blocks, of the largest block, and of all."""
    with torch.device("meta"):
        model = Model(cfg.model)
    blocks = own_blocks(model)
    inside = {p for block in blocks for p in block.parameters()}
    outside = {*model.parameters()} - inside
    return (num_bytes(outside), max((num_bytes(block.parameters()) for block in blocks), default=0),
            num_bytes(outside | inside))


def num_bytes(parameters: Iterable[Tensor]) -> int:
    return sum(p.nbytes for p in parameters)


def sums(found: Breakdown) -> Counter:
    """The bytes of each part, of all modules together."""
    by_part = Counter()
    for (_, part), size in found.parts.items():
        by_part[part] += size
    return by_part


def divided(found: Breakdown, processes: int) -> Breakdown:
    """With each process's part of what lasts."""
    return remade(found, Counter({key: size // processes if key[1] in (*LASTING, "gradients") else size
                                  for key, size in found.parts.items()}))


def with_more(found: Breakdown, **more: int) -> Breakdown:
    """With more bytes of some parts, outside all modules."""
    return remade(found, found.parts + Counter({("", part): size for part, size in more.items()}))


def remade(found: Breakdown, parts: Counter) -> Breakdown:
    return replace(found, num_bytes=parts.total(), parts=parts)
