"""Which allocator fits into the free memory, what would make a run fit, and how large it may become."""

import bisect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from config import Config, override
from configuration.command_line import spell_bytes
from configuration.rules import WHOLE_MATRICES
from memory_prediction.prediction import Prediction, predict

SECONDS = 6.0  # of looking for changes that make a run fit
CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)  # GB (2**30) of the GPUs that are sold and rented
COUNTS = (1, 2, 4, 8)  # of cards in a machine
CONTEXT_BYTES, KEPT_FREE = 500 * 2**20, 0.9  # of CUDA itself; x the rest, what tensors can have of it


class Room(NamedTuple):
    """How much memory a process may take, and what it holds before the run begins, in bytes."""

    limit: float  # inf = no limit
    base: int

    def allocator_for(self, prediction: Prediction) -> str | None:
        """The allocator with which a run fits: "tight" returns freed memory at once; None = it does not fit."""
        room = self.limit - self.base
        return "fast" if prediction.high_bytes <= room else "tight" if prediction.low_bytes <= room else None

    def beside(self, prediction: Prediction, allocator: str) -> float:
        """What is left beside a run."""
        return self.limit - self.base - prediction.bytes_with(allocator)


def cheaper(
    cfg: Config, room: Room, device: str = "cpu", *, processes: int = 1, count: int = 3, seconds: float = SECONDS,
) -> Iterator[tuple[dict, Prediction]]:
    """The first `count` changes that make a run fit, cheapest first: (flags, the prediction with them).

    After `seconds` nothing more is predicted, so that an answer comes soon for a model of any size.
    """
    known: dict[str, Prediction | None] = {}  # None = it does not fit
    end = time.monotonic() + seconds

    def fits(changes: dict[str, Any]) -> bool:
        if str(changes) not in known and time.monotonic() < end:
            known[str(changes)] = None
            with suppress(ValueError):
                prediction = predict(override(cfg, changes), device=device, processes=processes)
                known[str(changes)] = prediction if room.allocator_for(prediction) else None
        return known.get(str(changes)) is not None

    fitting = (way[bisect.bisect_left(way, True, key=fits)] for way in _ways(cfg, fits, processes)
               if fits(way[-1]))
    given = set()
    while len(given) < count and (changes := next(fitting, None)):
        unchunked = {flag: value for flag, value in changes.items() if flag != "train.loss_chunk"}
        changes = unchunked if unchunked and fits(unchunked) else changes  # the peak may be elsewhere
        if str(changes) not in given:
            given.add(str(changes))
            yield changes, known[str(changes)]


def in_words(cfg: Config, room: Room, device: str = "cpu", *, processes: int = 1) -> list[str]:
    """The cheapest changes that make a run fit, as flags, each with the memory the process then takes."""
    def flags(changes: dict[str, Any]) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())

    return [f"{flags(changes)} ({spell_bytes(room.base + prediction.low_bytes)})"
            for changes, prediction in cheaper(cfg, room, device, processes=processes)]


def _ways(cfg: Config, fits: Callable[[dict[str, Any]], bool], processes: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of changes, each of which saves more than the one before it; the cheapest list first."""
    train = cfg.train
    stories = {"train.graded_stories": 0} if cfg.num_graded else {}
    kept = {} if train.checkpoint_activations else {"train.checkpoint_activations": True}
    chunked = {"train.loss_chunk": 32} if (train.loss_chunk or math.inf) > 32 and cfg.model.max_seq_len > 32 else {}
    split = [{"train.batch_size": rows, "train.accumulation": train.accumulation * train.batch_size // rows}
             for rows in range(train.batch_size // 2, 0, -1) if train.batch_size % rows == 0] or [{}]
    if processes > 1 and not train.shard and train.optimizer not in WHOLE_MATRICES:
        yield [{"train.shard": True}]
    all_three = [rows | chunked | kept for rows in split]
    if fits(all_three[-1] | stories):
        more = {} if fits(all_three[-1]) else stories
        ways = ([{}], [chunked], split, [kept], [chunked | kept], all_three)
        yield from filter(all, ([changes | more for changes in way] for way in ways))
    for flag, size in (("model.num_layers", cfg.model.num_layers), ("model.max_seq_len", cfg.model.max_seq_len),
                       ("model.dim", cfg.model.dim)):
        smaller = [{flag: size // factor} for factor in (2, 4, 8) if size >= factor]
        yield from filter(None, [smaller])


def largest(
    cfg: Config, flag: str, step: int, fits: Callable[[Prediction], bool], device: str = "cpu", *, processes: int = 1,
) -> int | None:
    """The largest multiple of `step` for a flag at which a run fits; None if none fits.

    By doubling, then by bisection: memory must grow with the flag.
    """
    def good(number: int) -> bool:
        return fits(predict(override(cfg, {flag: number * step}), device=device, processes=processes))

    low, high = 0, 1
    while good(high):
        low, high = high, 2 * high
        if high * step > 2**24:
            break
    while high - low > max(1, low // 64):
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low * step or None


def cards(cfg: Config, alone: Prediction) -> list[tuple[int, int]]:
    """(processes, GB of the smallest card for each) on which a run fits, with train.shard from two on.

    `alone` is its prediction for one process on a GPU.
    """
    found = []
    for number in COUNTS:
        try:
            each = alone if number == 1 else predict(override(cfg, {"train.shard": True}), device="cuda",
                                                     processes=number)
        except ValueError:  # the batch cannot be shared, or the optimizer needs whole matrices
            continue
        needed = each.high_bytes / KEPT_FREE + CONTEXT_BYTES
        found += [(number, size) for size in CARDS if needed <= size * 2**30][:1]
    return found
