"""One saved step of a run: a folder that is whole or refused.

    step_00000500/   model.safetensors  optimizer.pt  progress.json  SHA256SUMS
                     ema.safetensors, where a moving average of the weights is kept
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from run_store.atomic_files import CHECKPOINT, SUMS, find_damage, flush, flush_tree, read_sums, sha256, verified

AVERAGE = "ema.safetensors"


@dataclass
class Progress:
    """Where a run stands; with the weights and the optimizer's state, all that going on needs."""

    step: int = 0  # optimizer steps taken
    tokens: int = 0  # targets learned from
    seconds: float = 0.0  # spent so far, over all sittings
    flops: float = 0.0  # of forward and backward
    val_loss: float | None = None  # nats per token, on the first `eval_tokens`; None = not evaluated at this step
    recent_losses: list[float] = field(default_factory=list)  # of the steps since the last line of the log
    recent_noise: list[tuple[float, float]] = field(default_factory=list)  # the same of gradients.NoiseScale, if asked
    unseen: dict[str, float] | None = None  # lr and grad_norm of the last step, until it is evaluated and logged

    @property
    def seen_steps(self) -> int:
        """The steps whose evaluation, line of the log and samples are done."""
        return self.step - bool(self.unseen)


class NotWritten(ValueError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoint:
    """One saved step: its weights, and what going on from it needs.

    Reading raises ValueError where a file is not what was saved, by its SHA-256.
    """

    def __init__(self, path: Path):
        self.path = path
        self.step = int(path.name.removeprefix("step_"))

    @cached_property
    def progress(self) -> Progress:
        return Progress(**json.loads(verified(self.path, "progress.json").read_text(encoding="utf-8")))

    def load_weights(self, model: nn.Module, *, ema: bool = False) -> None:
        """The weights, or their moving average; ValueError where there is none, or for another architecture."""
        if ema and not (self.path / AVERAGE).exists():
            raise ValueError(f"{self.path} has no {AVERAGE}: only a run with train.ema_decay keeps an average")
        try:
            load_model(model, str(verified(self.path, AVERAGE if ema else "model.safetensors")))
        except RuntimeError as error:
            raise ValueError(f"{self.path} does not fit its configuration: {' '.join(str(error).split())}") from None

    def load_training(self, model: nn.Module, optimizer, average: nn.Module | None = None) -> Progress:
        """Restore weights, their average, the optimizer's state and the random state; return where that was."""
        self.load_weights(model)
        if average is not None:
            self.load_weights(average, ema=True)
        state = torch.load(verified(self.path, "optimizer.pt"), map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        restore_random(state["random"])
        return self.progress

    @property
    def fingerprint(self) -> str:
        """What its files were saved as, in one SHA-256 (hex). Raises ValueError where that cannot be read."""
        return hashlib.sha256(json.dumps(read_sums(self.path)).encode()).hexdigest()

    def problem(self) -> str | None:
        """What is wrong with its files; None = all are what was saved."""
        return find_damage(self.path)


def save(
    path: Path, model: nn.Module, optimizer, progress: Progress, average: nn.Module | None = None,
) -> None:
    """Write a checkpoint under its name, whole or not at all.

    Raises NotWritten where the disk refuses it.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        write_checkpoint(unfinished, model, optimizer, progress, average)
        publish(unfinished, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        cause = root_cause(error)
        if not isinstance(cause, OSError | SafetensorError):
            raise
        raise NotWritten(f"{path} cannot be written ({cause})") from error


def root_cause(error: BaseException) -> BaseException:
    """What went wrong first: torch hides the disk's error behind its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def write_checkpoint(
    folder: Path, model: nn.Module, optimizer, progress: Progress, average: nn.Module | None = None,
) -> None:
    """Write a checkpoint's files and their sums into an empty folder."""
    weights, optimizer_state, how_far = files = [folder / name for name in CHECKPOINT]
    save_model(model, str(weights))
    if average is not None:
        files.append(folder / AVERAGE)
        save_model(average, str(files[-1]))
    with optimizer_state.open("wb") as file:
        torch.save({"optimizer": optimizer.state_dict(), "random": random_state()}, file)
    how_far.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    sums = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def random_state() -> list[torch.Tensor]:
    """What torch draws from: the CPU's state, and each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def restore_random(states: list[torch.Tensor]) -> None:
    """Go on drawing where `random_state` was, on the GPUs that are here."""
    torch.set_rng_state(states[0])
    for device, state in zip(range(torch.cuda.device_count()), states[1:], strict=False):
        torch.cuda.set_rng_state(state, device)


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest validation loss, the earliest of equals; None where none was evaluated."""
    evaluated = [c for c in checkpoints if c.progress.val_loss is not None]
    return min(evaluated, key=lambda c: c.progress.val_loss, default=None)


def publish(unfinished: Path, path: Path) -> None:
    """Give a folder its name when all of it is on the disk; the one that had the name is deleted after that."""
    flush_tree(unfinished)
    before = path.with_name(f".{path.name}.before.tmp")
    if path.exists():
        path.rename(before)
    unfinished.rename(path)
    flush(path.parent)
    if before.exists():
        shutil.rmtree(before)


def restore_interrupted(folder: Path) -> None:
    """Give back their names to folders whose successors never got it."""
    for before in folder.glob(".*.before.tmp"):
        path = before.with_name(before.name.removeprefix(".").removesuffix(".before.tmp"))
        if not path.exists():
            before.rename(path)
