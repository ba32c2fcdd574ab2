"""The files of a checkpoint, written whole or not at all; and the state of the random generators."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from run_store.atomic_files import CHECKPOINT, SUMS, flush_tree, sha256
from run_store.parts import Part, layout, parts_of, write_weights
from run_store.unfinished import private_folder, publish, remove

AVERAGE = "ema.safetensors"


class NotWritten(ValueError):
    """A checkpoint could not be written; earlier ones are as they were."""


def save(
    path: Path, model: nn.Module, optimizer, progress: Any, average: nn.Module | None = None,
    random: Sequence[torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all. Raises NotWritten if the disk refuses it."""
    try:
        with private_folder(path) as unfinished:
            write_checkpoint(unfinished, model, optimizer, progress, average, random)
            replace(unfinished, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = root_cause(error)
        if not isinstance(cause, OSError | SafetensorError):
            raise
        raise NotWritten(f"{path} cannot be written ({cause})") from error


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain: torch hides the disk's error behind its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def write_checkpoint(
    folder: Path, model: nn.Module, optimizer, progress: Any, average: nn.Module | None = None,
    random: Sequence[torch.Tensor] | None = None,
) -> None:
    """Write the files of a checkpoint and their SHA-256 into an empty folder.

    Of the model, its average and the optimizer only the `state_dict` is read; `random` is the state of the generators,
    None = as they are now.
    """
    weights, optimizer_state, progress_file = files = [folder / name for name in CHECKPOINT]
    save_weights(model, weights)
    if average is not None:
        files.append(folder / AVERAGE)
        save_weights(average, files[-1])
    with optimizer_state.open("wb") as file:
        torch.save({"optimizer": optimizer.state_dict(), "random": random or random_state()}, file)
    progress_file.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    sums = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a safetensors file of a model, which may lie in parts in several processes."""
    states = model.state_dict()
    if parts_of(states):
        write_weights(states, path)
    else:
        save_model(model, str(path))


def parts_to_send(model: nn.Module, optimizer, average: nn.Module | None = None) -> list[Part]:
    """What lies in parts in several processes, in the order in which write_checkpoint comes to it."""
    weights = [holder.state_dict() for holder in (model, average) if holder is not None]
    return parts_of([*(layout(states)[1] for states in weights if parts_of(states)), optimizer.state_dict()])


def random_state() -> list[torch.Tensor]:
    """The state of torch's generators: the CPU's, then each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def restore_random(states: list[torch.Tensor]) -> None:
    """Restore what `random_state` gave, as far as this machine has GPUs."""
    torch.set_rng_state(states[0])
    for device, state in zip(range(torch.cuda.device_count()), states[1:], strict=False):
        torch.cuda.set_rng_state(state, device)


def replace(unfinished: Path, path: Path) -> None:
    """Publish a checkpoint; one that had the name is deleted after that."""
    before = path.with_name(f".{path.name}.before.tmp")
    if path.exists():
        if before.exists():
            remove(before)
        flush_tree(unfinished)
        path.rename(before)
    publish(unfinished, path)
    if before.exists():
        remove(before)


def restore_interrupted(folder: Path) -> None:
    """Restore checkpoints whose replacement was interrupted; delete those that were replaced."""
    for before in folder.glob(".step_*.before.tmp"):
        path = before.with_name(before.name.removeprefix(".").removesuffix(".before.tmp"))
        if path.exists():
            remove(before)
        else:
            before.rename(path)
