"""The memory of a run: predicted before it begins, limited while it runs, measured at its end."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from config import Config, flat
from configuration.command_line import spell_bytes
from memory_prediction.baseline import LASTLY, baseline_bytes
from memory_prediction.free_memory import free_bytes
from memory_prediction.prediction import Prediction, predict
from memory_prediction.process import (
    Watchdog,
    choose_allocator,
    file_bytes,
    is_out_of_memory,
    limit_growth,
    peak_rss_bytes,
    reset_peak_rss,
    rss_bytes,
)
from memory_prediction.suggestions import Room, in_words
from run_store.atomic_files import write_text

FILE = "memory.json"
EXIT_OUT_OF_MEMORY, EXIT_WATCHDOG = 76, 77
CODE_BYTES = 80 * 2**20  # resident code of a process in training; a fork has touched half of it when it begins
LEAST_GROWTH = 32 * 2**20  # with less no thread can start, and starting one waits forever
WATCHED = 1.03  # x the limit: the watchdog's limit, which counts pages of files too


class OutOfMemory(Exception):
    """A run exceeded its memory limit, or the memory of the machine."""


@dataclass(frozen=True)
class Budget:
    """How much memory a run may take and is predicted to take, in bytes."""

    prediction: Prediction
    room: Room  # the limit of the whole process, and what it holds besides the steps
    allocator: str  # fast or tight: see choose_allocator
    device: torch.device
    enforced: bool  # whether train.memory_limit names the limit
    copies_checkpoints: bool  # whether a copy of what is saved has room on the CPU, so that training goes on meanwhile

    @classmethod
    def of(
        cls, cfg: Config, device: torch.device, *, force: bool = False, processes: int = 1, on_this_machine: int = 1,
    ) -> "Budget | None":
        """Predict a run and choose the allocator of this process; None if the device is neither cpu nor cuda.

        It may be one of several processes, some of which share the memory of this machine.

        Call it when everything but the model exists. Raises ValueError if the run cannot fit, unless `force`.
        """
        if device.type not in ("cpu", "cuda"):
            return None
        prediction, limit = _predicted(cfg, device, processes), cfg.train.memory_limit_bytes
        base = (baseline_bytes() or 0) - prediction.imported_bytes + LASTLY if device.type == "cpu" else 0
        free = free_bytes() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
        free = math.inf if free is None else free // (on_this_machine if device.type == "cpu" else 1)
        room = Room(limit=min(limit or math.inf, base + free), base=base)
        allocator = room.allocator_for(prediction)
        if allocator is None and not force:
            raise ValueError(_refusal(cfg, prediction, room, device, processes))
        allocator = allocator or "tight"
        if device.type == "cpu":
            choose_allocator(allocator)
        spare = room.beside(prediction, allocator) if device.type == "cpu" else free_bytes() or math.inf
        copies = prediction.checkpoint_bytes + LEAST_GROWTH <= spare  # a thread of its own needs some more
        return cls(prediction, room, allocator, device, limit is not None, copies)

    @contextlib.contextmanager
    def enforced_on(self, folder: Path | None) -> Iterator[None]:
        """Inside the block the limit holds, if train.memory_limit gives one; memory.json in a folder gets the peak.

        Raises OutOfMemory if memory runs out.
        """
        self._write(folder, None)
        reset_peak_rss()
        try:
            with limited(self) if self.enforced else contextlib.nullcontext():
                yield
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(exceeded(self)) from error
            raise
        finally:
            with contextlib.suppress(OSError):  # a full disk is reported elsewhere
                self._write(folder, self.peak_bytes())

    def peak_bytes(self) -> int | None:
        """The peak of this process since the run began; on a GPU, of what torch allocated there."""
        return peak_rss_bytes() if self.device.type == "cpu" else torch.cuda.max_memory_allocated(self.device)

    @property
    def expected(self) -> tuple[int, int]:
        """The least and the most that the process will hold, as predicted; the most while a checkpoint is written."""
        most = self.room.base + self.prediction.bytes_with(self.allocator)
        if self.device.type == "cpu" and self.copies_checkpoints:
            most += self.prediction.checkpoint_bytes
        return self.baseline + self.prediction.least_bytes, most

    @property
    def baseline(self) -> int:
        """What the process holds before the run."""
        return self.room.base - (LASTLY if self.device.type == "cpu" else 0)

    def announcement(self) -> str:
        low, high = self.expected
        between = spell_bytes(low) if low == high else f"{spell_bytes(low)} to {spell_bytes(high)}"
        whose = "train.memory_limit" if self.enforced else "free"
        limit = "" if self.room.limit == math.inf else f" of {spell_bytes(self.room.limit)} ({whose})"
        slower = "; freed memory goes back at once, so steps take longer" if self.allocator == "tight" else ""
        return f"memory: {between} predicted{limit}{slower}"

    def result(self) -> str | None:
        """The measured peak beside the prediction; None if it cannot be measured."""
        (low, high), peak = self.expected, self.peak_bytes()
        return peak and f"memory: at most {spell_bytes(peak)}, predicted {spell_bytes(low)} to {spell_bytes(high)}"

    def _write(self, folder: Path | None, peak: int | None) -> None:
        if folder is None:
            return
        low, high = self.expected
        numbers: dict[str, Any] = {
            "predicted_low_bytes": low, "predicted_high_bytes": high, "baseline_bytes": self.baseline,
            "limit_bytes": self.room.limit if self.enforced else None, "allocator": self.allocator, "peak_bytes": peak}
        write_text(folder / FILE, json.dumps(numbers, indent=2) + "\n")


@contextlib.contextmanager
def limited(budget: Budget) -> Iterator[None]:
    """Refuse memory beyond the limit; on a CPU also end the process if it exceeds the limit."""
    with contextlib.ExitStack() as stack:
        if budget.device.type == "cuda":
            total = torch.cuda.get_device_properties(budget.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, budget.room.limit / total), budget.device)
        elif rss_bytes() is not None:
            code = max(0, CODE_BYTES - file_bytes())
            stack.enter_context(Watchdog(None, round(WATCHED * budget.room.limit), partial(exit_at_once, budget)))
            growth = max(LEAST_GROWTH, int(budget.room.limit) - rss_bytes() - code)
            stack.callback(limit_growth(growth + budget.prediction.unwritten_bytes))
        yield


def exceeded(budget: Budget) -> str:
    """The sentence on a run that ran out of memory."""
    low, high = budget.expected
    return (f"memory ran out: the run may take {spell_bytes(budget.room.limit)}, and was predicted to take "
            f"{spell_bytes(low)} to {spell_bytes(high)}; use a smaller train.batch_size with more "
            "train.accumulation, or train.checkpoint_activations")


def exit_at_once(budget: Budget, rss: int) -> None:
    print(f"error: {exceeded(budget)} (it holds {spell_bytes(rss)})", file=sys.stderr, flush=True)
    os._exit(EXIT_WATCHDOG)


def _predicted(cfg: Config, device: torch.device, processes: int) -> Prediction:
    """Predict a run. Raises ValueError if no number counts its bytes: its largest size is probably the mistake."""
    try:
        return predict(cfg, device=device.type, processes=processes)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
    sizes = {name: value for name, value in flat(cfg).items() if isinstance(value, int)}
    name = max(sizes, key=sizes.get)
    raise ValueError(f"{name}={sizes[name]} makes a tensor larger than any memory: use less")


def _refusal(cfg: Config, prediction: Prediction, room: Room, device: torch.device, processes: int) -> str:
    ways = "; ".join(in_words(cfg, room, device.type, processes=processes)) or "a much smaller model"
    whose = f"train.memory_limit={cfg.train.memory_limit}" if room.limit == cfg.train.memory_limit_bytes else "memory"
    return (f"{whose}: the run needs {spell_bytes(room.base + prediction.low_bytes)} (most of it in the "
            f"{prediction.peak_name}), and {spell_bytes(room.limit)} can be had; it would fit with {ways}; or try it "
            "all the same with --force")
