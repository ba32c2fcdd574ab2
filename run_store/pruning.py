"""Remove runs, superseded checkpoints and leftovers of interrupted writes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from configuration.reading import read_as
from run_store.atomic_files import find_damage
from run_store.facts import LOSS
from run_store.listing import num_bytes, run_folders, step_folders, summarize_run
from run_store.lock import locked
from run_store.unfinished import abandoned, remove


@dataclass(frozen=True)
class Removal:
    """A folder that can be removed."""

    path: Path
    why: str
    run: Path | None = None  # the run that it is, or belongs to

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.path)

    def delete(self) -> None:
        """Delete the folder. Raises ValueError if its run is being trained."""
        with locked(self.run) if self.run else nullcontext():
            remove(self.path)


def find_removable(models: Path, patterns: Sequence[str] = ()) -> Iterator[Removal]:
    """Find what can go without a loss: unfinished folders, broken runs without weights, superseded checkpoints.

    A finished run keeps its best and its last checkpoint. A run that is being trained keeps all.
    """
    if not patterns:
        yield from unfinished(models, None)
    for path in run_folders(models, patterns):
        summary = summarize_run(path)
        if summary.state == "broken" and not (path / "log.csv").exists() and not step_folders(path):
            yield Removal(path, f"broken, with neither log nor checkpoint: {summary.problem}", run=path)
        if summary.state in ("finished", "interrupted", "diverged"):
            yield from unfinished(path / "checkpoints", path)
        if summary.state == "finished":
            for folder in superseded_checkpoints(path):
                yield Removal(folder, "neither the best nor the last", run=path)


def unfinished(folder: Path, run: Path | None) -> Iterator[Removal]:
    """Folders that a process was writing or deleting when it died."""
    for path in abandoned(folder):
        yield Removal(path, "incompletely written or deleted", run=run)


def superseded_checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a run that are neither its best nor its last; empty if one of those two is damaged."""
    folders = step_folders(path)
    try:
        kept = {lowest_loss(val_losses(folders)), *folders[-1:]} - {None}
        others = [folder for folder in folders if folder not in kept]
    except ValueError:
        return []
    return others if others and not any(map(find_damage, kept)) else []


def val_losses(checkpoints: Sequence[Path]) -> dict[Path, float | None]:
    """The validation loss of each checkpoint; None = not evaluated. Raises ValueError if one is damaged."""
    return {folder: read_as(LOSS, folder / "progress.json").get("val_loss") for folder in checkpoints}


def lowest_loss(losses: Mapping[Path, float | None]) -> Path | None:
    """The checkpoint with the lowest loss, the earliest of equals; None if none was evaluated."""
    return min((folder for folder in losses if losses[folder] is not None), key=losses.get, default=None)
