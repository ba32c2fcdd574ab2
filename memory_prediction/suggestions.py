"""Which allocator fits into the free memory, what would make a run fit, and how large it may become."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from config import Config, override
from configuration.command_line import spell_bytes
from memory_prediction.prediction import Prediction, predict


class Room(NamedTuple):
    """How much memory a process may take, and what it holds before the run begins, in bytes."""

    limit: float  # inf = no limit
    base: int

    def allocator_for(self, prediction: Prediction) -> str | None:
        """The allocator with which a run fits: "tight" returns freed memory at once; None = it does not fit."""
        room = self.limit - self.base
        return "fast" if prediction.high_bytes <= room else "tight" if prediction.low_bytes <= room else None


def cheaper(cfg: Config, room: Room, device: str = "cpu", *, count: int = 3) -> Iterator[tuple[dict, Prediction]]:
    """The first `count` changes that make a run fit, cheapest first: (flags, the prediction with them)."""
    for changes in _changes(cfg):
        try:
            prediction = predict(override(cfg, changes), device=device)
        except ValueError:
            continue
        if room.allocator_for(prediction):
            yield changes, prediction
            count -= 1
        if not count:
            return


def in_words(cfg: Config, room: Room, device: str = "cpu") -> list[str]:
    """The cheapest changes that make a run fit, as flags, each with the memory the process then takes."""
    def flags(changes: dict[str, Any]) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())

    return [f"{flags(changes)} ({spell_bytes(room.base + prediction.low_bytes)})"
            for changes, prediction in cheaper(cfg, room, device)]


def _changes(cfg: Config) -> Iterator[dict[str, Any]]:
    train, kept = cfg.train, {"train.checkpoint_activations": True}
    chunked = {"train.loss_chunk": 32} if (train.loss_chunk or math.inf) > 32 and cfg.model.max_seq_len > 32 else {}
    split = [{"train.batch_size": rows, "train.accumulation": train.accumulation * train.batch_size // rows}
             for rows in range(train.batch_size // 2, 0, -1) if train.batch_size % rows == 0]
    checkpointed = [] if train.checkpoint_activations else [kept]
    yield from filter(None, (chunked, *split[:2], *checkpointed, chunked | kept, *split[2:],
                             *(rows | chunked | kept for rows in split)))
    for factor in (2, 4, 8):
        if cfg.model.num_layers >= factor:
            yield {"model.num_layers": cfg.model.num_layers // factor}
        yield {"model.max_seq_len": max(1, cfg.model.max_seq_len // factor)}
        yield {"model.dim": cfg.model.dim // factor}


def largest(cfg: Config, flag: str, step: int, fits: Callable[[Prediction], bool], device: str = "cpu") -> int | None:
    """The largest multiple of `step` for a flag at which a run fits; None if none fits.

    By doubling, then by bisection: memory must grow with the flag.
    """
    def good(number: int) -> bool:
        return fits(predict(override(cfg, {flag: number * step}), device=device))

    low, high = 0, 1
    while good(high):
        low, high = high, 2 * high
        if high * step > 2**24:
            break
    while high - low > max(1, low // 64):
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low * step or None
