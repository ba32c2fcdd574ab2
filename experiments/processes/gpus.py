"""GPUs for processes side by side: each process sees one, that of the fewest processes."""

import math
import os
from collections.abc import Mapping, Sequence

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
AS_IT_IS = ""  # in place of a GPU: the process sees what this one sees


def visible_gpus(device: str) -> tuple[str, ...]:
    """What VISIBLE may be for a process that trains on `device` (train.device), so that it sees one GPU.

    If VISIBLE is set already, these are its own words, which may be numbers or UUIDs. AS_IT_IS alone if there is no
    GPU, or if `device` is the CPU or names a GPU.
    """
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    given = [word.strip() for word in os.environ.get(VISIBLE, "").split(",") if word.strip()]
    return tuple((given or [str(number) for number in range(count)])[:count]) or (AS_IT_IS,)


def least_loaded(held: Mapping[str, Sequence[int]], needed: int = 0, limit: float = math.inf) -> str | None:
    """The GPU with the fewest processes among those with room for `needed` more bytes; of equals the emptiest.

    `held`: GPU -> the bytes that each process on it may take; `limit`: of them together. None = there is no room.
    """
    with_room = [gpu for gpu, each in held.items() if sum(each) + needed <= limit]
    return min(with_room, key=lambda gpu: (len(held[gpu]), sum(held[gpu])), default=None)


def memory_bytes(device: torch.device) -> int:
    """The memory of a GPU; of the smallest, if `device` names none."""
    numbers = range(torch.cuda.device_count()) if device.index is None else [device.index]
    return min(torch.cuda.get_device_properties(number).total_memory for number in numbers)
