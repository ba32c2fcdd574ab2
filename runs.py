"""A saved run: a folder with its configuration, tokenizer, log, samples and checkpoints.

    python runs.py list|show|rm|prune|import|export

    models/<name>/
        config.json  data.json  environment.json  tokenizer/     what it is
        log.csv  samples.jsonl  grades.json  pairs.json  loss.png  how it went
        tensorboard/  wandb/  wandb.txt                          the same, by train.trackers; see training/trackers.py
        checkpoints/step_00000500/                               see run_store/checkpoint.py
"""

if __name__ == "__main__":  # the program needs no torch, whose import takes longer than listing a thousand runs
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()
    from exchange.command import COMMANDS
    from run_store.commands import main

    raise SystemExit(main(COMMANDS))

import contextlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config import Config, ModelConfig, load_config, save_config
from configuration.storage import to_json
from model import Model
from run_store.atomic_files import write_text
from run_store.checkpoint import Checkpoint, CheckpointFolder, Progress
from run_store.checkpoint_files import write_checkpoint
from run_store.facts import DataFacts, in_folder, read_data
from run_store.listing import COLUMNS, MODELS, ROOT, find_run, list_names, read_shapes, saved_names
from run_store.lock import fcntl, locked
from run_store.run_log import TIMED, RunLog
from run_store.unfinished import private_folder, publish
from tokenizer import Tokenizer, load_tokenizer
from tools import unfilled

__all__ = ["COLUMNS", "MODELS", "ROOT", "TIMED", "NameTaken", "Progress", "Run", "environment", "free_name",
           "is_finished", "is_there", "require_free", "require_locks", "saved_runs", "there_are"]

MOST_EMPTY = 1000  # layers without a weight, of which a checkpoint says nothing


class Run(RunLog, CheckpointFolder):
    """A run's folder, by its path or its name in models/. Raises ValueError if there is none."""

    def __init__(self, where: str | Path):
        super().__init__(find_run(where, MODELS))

    @classmethod
    def create(
        cls, name: str, cfg: Config, tokenizer: Tokenizer, data: Mapping[str, Any], weights: nn.Module | None = None,
    ) -> "Run":
        """Make the folder, with all that is known before the first step; `weights` become its checkpoint of step 0.

        Raises NameTaken if `name` is taken.
        """
        path = require_free(name)
        with private_folder(path) as unfinished:
            tokenizer.save(unfinished / "tokenizer")
            write_text(unfinished / "data.json", json.dumps(data, indent=2) + "\n")
            write_text(unfinished / "environment.json", json.dumps(environment(), indent=2) + "\n")
            save_config(cfg, unfinished / "config.json")
            if weights is not None:
                begin_with(unfinished, weights)
            try:
                publish(unfinished, path)
            except FileExistsError:  # by another process, a moment ago
                raise taken(name) from None
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> Config:
        return load_config(self.path / "config.json")

    @cached_property
    def data(self) -> DataFacts:
        """What data.json says of the training data. Raises ValueError if it is missing or damaged."""
        return in_folder(self.path, read_data)

    @property
    def is_finished(self) -> bool:
        """Whether its last step is reported; the loss curve is written last."""
        return (self.path / "loss.png").exists()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Be the only process that trains it. Raises ValueError if another one does; see run_store/lock.py."""
        return locked(self.path)

    def change(self, cfg: Config) -> None:
        """Replace its configuration."""
        if cfg != self.config:
            write_text(self.path / "config.json", to_json(cfg))
            self.config = cfg

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path / "tokenizer")

    def load_model(
        self, checkpoint: str = "best", device: str | torch.device = "cpu", *, ema: bool = False,
        cfg: ModelConfig | None = None,
    ) -> Model:
        """The model in eval mode, with a checkpoint's weights or (`ema`) their moving average.

        `cfg` is another configuration that these weights fit, e.g. another backend of attention.
        Raises ValueError if they do not fit, or if no average was kept.
        """
        saved, cfg = self.checkpoint(checkpoint), cfg or self.config.model
        require_fitting(saved, cfg)
        model = Model(cfg, causal=self.config.train.facts.causal)
        saved.load_weights(model, ema=ema)
        return model.to(device).eval()

    def require_fitting_newest(self) -> None:
        """Raise ValueError if the newest whole checkpoint is of another size than the configuration."""
        whole = (saved for saved in reversed(self.checkpoints()) if not saved.problem())
        if newest := next(whole, None):
            require_fitting(newest, self.config.model)

    def save(
        self, model: nn.Module, optimizer, progress: Progress, average: nn.Module | None = None,
        random: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Write a checkpoint, whole or not at all; then delete all but the newest few and the best.

        See write_checkpoint for what is saved. Raises NotWritten if it cannot be written; earlier checkpoints stay as
        they are.
        """
        self.journal.flush()  # so that a power cut cannot leave a log that ends before its checkpoint
        self.save_checkpoint(model, optimizer, progress, average, random)
        self.prune_checkpoints(self.config.train.keep_checkpoints)


def begin_with(folder: Path, weights: nn.Module) -> None:
    """Write a log and a checkpoint of step 0, of weights that were not trained here; no optimizer has a state yet."""
    checkpoint = folder / "checkpoints" / "step_00000000"
    checkpoint.mkdir(parents=True)
    write_checkpoint(checkpoint, weights, torch.optim.SGD(weights.parameters()), Progress())
    known = ["0" if name in ("step", "tokens", "seconds", "flops") else "" for name in COLUMNS]
    write_text(folder / "log.csv", f"{','.join(COLUMNS)}\n{','.join(known)}\n")


def require_fitting(saved: Checkpoint, cfg: ModelConfig) -> None:
    """Raise ValueError if a checkpoint is of another size than the configuration; takes no memory for weights."""
    blocks = [0]
    blocks += [1 + int(part) for name in read_shapes(saved.path / "model.safetensors")
               if (part := name.removeprefix("blocks.").partition(".")[0]).isdecimal()]
    if not max(blocks) <= cfg.num_layers <= max(*blocks, MOST_EMPTY):
        raise ValueError(f"{saved.path} does not fit its configuration: it has {max(blocks)} layers, and "
                         f"model.num_layers={cfg.num_layers}")
    try:
        with unfilled():
            model = Model(cfg)
    except RuntimeError as error:
        raise ValueError(f"{saved.path} does not fit its configuration, of which no model is made: {error}") from None
    saved.require_fitting(model)


def saved_runs() -> list[str]:
    """The names of the runs in models/."""
    return saved_names(MODELS)


def is_there(name: str) -> bool:
    """Whether models/ has a run of this name."""
    return (MODELS / name / "config.json").is_file()


def is_finished(name: str) -> bool:
    """Whether models/ has a run of this name that has taken all its steps."""
    return is_there(name) and Run(name).is_finished


def there_are(wanted: str = "") -> str:
    """The names of the saved runs, for a sentence; of many, those nearest to `wanted`."""
    return list_names(saved_runs(), wanted)


def require_locks() -> None:
    """Raise ValueError if the system cannot keep two processes from training the same run."""
    if fcntl is None:
        raise ValueError("training needs the file locks of fcntl, which this system lacks: use Linux, macOS or WSL")


def require_free(name: str) -> Path:
    """The folder of a new run. Raises NameTaken if there is one already: a run is never overwritten."""
    path = MODELS / name
    if os.path.lexists(path):
        raise taken(name)
    return path


class NameTaken(ValueError):
    """A run or something else has the name."""


def taken(name: str) -> NameTaken:
    return NameTaken(f"train.name={name} is taken by {MODELS / name}: choose another name, go on with "
                     f"--resume {name}, or delete the folder")


def free_name(stem: str) -> str:
    """`stem`, or the first of `stem-2`, `stem-3`, ... that is free."""
    number, name = 1, stem
    while os.path.lexists(MODELS / name):
        number += 1
        name = f"{stem}-{number}"
    return name


def environment() -> dict[str, Any]:
    """What a run depends on besides its configuration: versions, machine, commit."""
    commit = ""
    if git := shutil.which("git"):
        commit = subprocess.run([git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT,
                                capture_output=True, text=True, check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
            "processor": platform.machine(), "threads": torch.get_num_threads(), "commit": commit or None,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
