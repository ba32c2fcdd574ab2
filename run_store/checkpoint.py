"""Checkpoints: the saved steps of a run, each a folder that is verified when it is read.

    checkpoints/step_00000500/   model.safetensors  optimizer.pt  progress.json  SHA256SUMS
                                 ema.safetensors, if a moving average of the weights is kept
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Strict
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import nn

from configuration.command_line import warn
from configuration.reading import Count, Finite, checked
from run_store.atomic_files import find_damage, read_sums, verified
from run_store.checkpoint_files import AVERAGE, restore_interrupted, restore_random, save
from run_store.listing import read_object, read_shapes, step_folders
from run_store.parts import read_states, read_weights
from run_store.unfinished import remove

UNREADABLE = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, OSError, OverflowError,
              AssertionError, UnpicklingError)  # what damaged files make torch.load and load_state_dict raise
Pair = Annotated[tuple[float, float], Strict(False)]  # JSON has lists


@dataclass(config=ConfigDict(strict=True, extra="forbid"))
class Progress:
    """How far a run is. With the weights and the optimizer's state, all that resuming needs."""

    step: Count = 0  # optimizer steps taken
    tokens: Count = 0  # targets trained on
    seconds: Finite = 0.0  # of training, over all processes
    flops: Finite = 0.0  # of forward and backward
    val_loss: Finite | None = None  # nats per token, on the first `eval_tokens`; None = not evaluated at this step
    recent_losses: list[float] = field(default_factory=list)  # of the steps since the last line of the log
    recent_noise: list[Pair] = field(default_factory=list)  # the same of gradients.NoiseScale, if asked
    recent_parts: dict[str, list[float]] = field(default_factory=dict)  # the same of the other parts of the losses
    last_step: dict[str, float | None] = field(default_factory=dict)  # lr, grad_norm and more of the last step
    logged_steps: Count = 0  # steps whose evaluation, samples and line of the log are done: all, or all but the last

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Progress":
        """What asdict gave; what older versions saved too, which had `unseen`: last_step until it was logged."""
        saved = dict(saved)
        if "unseen" in saved:
            unseen = saved.pop("unseen")
            saved |= {"last_step": unseen or {}, "logged_steps": saved.get("step", 0) - bool(unseen)}
        with checked("progress.json"):
            return cls(**saved)


class Checkpoint:
    """One saved step: the weights, and what resuming needs.

    Reading raises ValueError if the SHA-256 of a file is not as it was saved.
    """

    def __init__(self, path: Path):
        self.path = path
        self.step = int(path.name.removeprefix("step_"))

    @cached_property
    def progress(self) -> Progress:
        return Progress.from_dict(read_object(verified(self.path, "progress.json")))

    def load_weights(self, model: nn.Module, *, ema: bool = False) -> None:
        """Load the weights, or their moving average. Raises ValueError if it is missing or does not fit the model."""
        if ema and not (self.path / AVERAGE).exists():
            raise ValueError(f"{self.path} has no {AVERAGE}: only a run with train.ema_decay keeps an average")
        file = verified(self.path, AVERAGE if ema else "model.safetensors")
        try:
            if isinstance(model, nn.Module):
                load_model(model, str(file))
            else:  # it lies in parts in several processes
                read_weights(model.state_dict(), file)
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{self.path} does not fit its configuration: {' '.join(str(error).split())}") from None

    def load_training(self, model: nn.Module, optimizer, average: nn.Module | None = None) -> Progress:
        """Restore weights, their average, the optimizer's state and the random state; return the progress.

        Raises ValueError if one of them cannot be read or does not fit.
        """
        progress = self.progress
        self.load_weights(model)
        if average is not None:
            self.load_weights(average, ema=True)
        file = verified(self.path, "optimizer.pt")
        try:
            if isinstance(model, nn.Module):
                state = torch.load(file, map_location="cpu", weights_only=True)
            else:
                state = read_states(file)
            optimizer.load_state_dict(state["optimizer"])
            restore_random([generator[:] for generator in state["random"]])
        except UNREADABLE as error:
            said = " ".join(str(error).split())[:100] or type(error).__name__
            raise ValueError(f"{file} is not the state of this run's optimizer: {said}") from None
        return progress

    def require_fitting(self, model: nn.Module) -> None:
        """Raise ValueError if a weight has another shape than in a model, which may be on the meta device."""
        expected, saved = model.state_dict(), read_shapes(self.path / "model.safetensors")
        for name, shape in saved.items():
            if name not in expected or list(expected[name].shape) != shape:
                known = tuple(expected[name].shape) if name in expected else "not known"
                raise ValueError(f"{self.path} does not fit its configuration: {name} is {tuple(shape)}, in the model "
                                 f"it is {known}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sums of its files. Raises ValueError if they cannot be read."""
        return hashlib.sha256(json.dumps(read_sums(self.path)).encode()).hexdigest()

    def not_finite(self) -> str | None:
        """The name of a weight that has a NaN or Inf, or why the weights cannot be read; None = all are finite."""
        try:
            with safe_open(self.path / "model.safetensors", "pt") as file:
                return next((name for name in file.keys() if not file.get_tensor(name).isfinite().all()),  # noqa: SIM118
                            None)
        except (OSError, SafetensorError) as error:
            return str(error)

    def problem(self) -> str | None:
        """What is wrong with its files; None = nothing."""
        return find_damage(self.path)


class CheckpointFolder:
    """The checkpoints of a run."""

    path: Path  # of the run

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, oldest first. One whose writing was interrupted never got its name."""
        return list(map(Checkpoint, step_folders(self.path)))

    def checkpoint(self, which: str = "best") -> Checkpoint:
        """The one with the lowest validation loss ("best"), the newest ("last"), or a step's number.

        Raises ValueError, with the steps that are saved, if there is no such checkpoint.
        """
        saved = self.checkpoints()
        if saved and which == "last":
            return saved[-1]
        if saved and which == "best":
            return best_of(saved) or saved[-1]
        for checkpoint in saved:
            if which == str(checkpoint.step):
                return checkpoint
        steps = ", ".join(str(c.step) for c in saved) or "none yet"
        raise ValueError(f"checkpoint={which} is not in {self.path}: use best, last or a step ({steps})")

    def save_checkpoint(
        self, model: nn.Module, optimizer, progress: Progress, average: nn.Module | None = None,
        random: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Write the checkpoint of a step, whole or not at all. Raises NotWritten if the disk refuses it."""
        save(self.path / "checkpoints" / f"step_{progress.step:08d}", model, optimizer, progress, average, random)

    def prune_checkpoints(self, keep: int) -> None:
        """Delete all but the newest `keep` checkpoints and the best."""
        saved = self.checkpoints()
        kept = {c.path for c in saved[-keep:]}
        try:
            if best := best_of(saved):
                kept.add(best.path)
            for checkpoint in saved:
                if checkpoint.path not in kept:
                    remove(checkpoint.path)
        except (OSError, ValueError) as error:  # an extra checkpoint does no harm
            warn(f"old checkpoints are kept: {error}")

    def drop_damaged(self) -> list[str]:
        """Restore interrupted checkpoints and remove damaged ones; return a sentence on each of those.

        Raises ValueError, and removes nothing, if all are damaged.
        """
        folder = self.path / "checkpoints"
        restore_interrupted(folder)
        saved = self.checkpoints()
        damaged = {checkpoint.path: problem for checkpoint in saved if (problem := checkpoint.problem())}
        if damaged and len(damaged) == len(saved):
            raise ValueError(f"{self.path.name} has no whole checkpoint ({'; '.join(damaged.values())}): "
                             f"to begin again, delete {folder}")
        for path in damaged:
            remove(path)
        return list(damaged.values())


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the lowest validation loss, the earliest of equals; None if none was evaluated."""
    evaluated = [c for c in checkpoints if c.progress.val_loss is not None]
    return min(evaluated, key=lambda c: c.progress.val_loss, default=None)
