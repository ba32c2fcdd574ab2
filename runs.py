"""A saved run: a folder with its configuration, tokenizer, log, samples and checkpoints.

    python runs.py list|show|rm|prune

    models/<name>/
        config.json  data.json  environment.json  tokenizer/     what it was
        log.csv  samples.jsonl  grades.json  loss.png            how it went
        tensorboard/  wandb/  wandb.txt                          the same, where train.trackers asks; see trackers.py
        checkpoints/step_00000500/                               see checkpoint.py
"""

if __name__ == "__main__":  # the program needs no torch, whose import alone takes longer than a thousand runs
    from run_store.commands import main

    raise SystemExit(main())

import contextlib
import csv
import io
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from config import Config, load_config, save_config, to_dict
from configuration.command_line import warn
from model import Model
from run_store.append_log import AppendLog
from run_store.atomic_files import write_text
from run_store.checkpoint import Checkpoint, Progress, best_of, publish, restore_interrupted, save
from run_store.listing import (
    COLUMNS,
    MODELS,
    ROOT,
    complete_lines,
    find_run,
    list_names,
    saved_names,
    step_folders,
)
from run_store.lock import fcntl, locked
from run_store.pruning import remove
from tokenizer import Tokenizer, load_tokenizer

ASKED = ("grad_signal", "grad_noise", "noise_scale", "ema_val_loss")  # more, where flags ask; and grad_norm.LAYER
TIMED = ("seconds", "tokens_per_second")  # columns that no seed can repeat


class Run:
    """A run's folder, given by its path or its name in models/.

    Raises ValueError with one sentence where there is no whole run.
    """

    def __init__(self, where: str | Path):
        self.path = find_run(where, MODELS)
        self.journal = AppendLog()

    @classmethod
    def create(cls, name: str, cfg: Config, tokenizer: Tokenizer, data: dict[str, Any]) -> "Run":
        """Make the folder and write down what stands before the first step; ValueError where `name` is taken."""
        path = require_free(name)
        unfinished = path.with_name(f".{name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        tokenizer.save(unfinished / "tokenizer")
        write_text(unfinished / "data.json", json.dumps(data, indent=2) + "\n")
        write_text(unfinished / "environment.json", json.dumps(environment(), indent=2) + "\n")
        save_config(cfg, unfinished / "config.json")
        publish(unfinished, path)
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> Config:
        return load_config(self.path / "config.json")

    @cached_property
    def data(self) -> dict[str, Any]:
        """What it learned from: its fingerprint, both parts' sizes, the least bits per byte possible where known.

        Raises ValueError where the file is missing or damaged.
        """
        try:
            return json.loads((self.path / "data.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path / 'data.json'} cannot be read: {error}") from None

    @property
    def is_finished(self) -> bool:
        """Whether its last step has been reported; the loss curve is written last of all."""
        return (self.path / "loss.png").exists()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who trains it; the system lets go of the lock when a process dies, however it does.

        Raises ValueError where another holds it.
        """
        return locked(self.path)

    def change(self, cfg: Config) -> None:
        """Go on as `cfg` says."""
        if cfg != self.config:
            write_text(self.path / "config.json", json.dumps(to_dict(cfg), indent=2) + "\n")
            self.config = cfg

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path / "tokenizer")

    def log(self) -> pd.DataFrame:
        """The log's whole lines, one a row. Raises ValueError where there is none, or it is damaged."""
        try:
            text = "".join(complete_lines(self.path / "log.csv"))
            return pd.read_csv(io.StringIO(text), float_precision="round_trip")
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{self.path / 'log.csv'} cannot be read: {error}") from None

    def checkpoints(self) -> list[Checkpoint]:
        """Oldest first. A save that was cut short never got its name."""
        return list(map(Checkpoint, step_folders(self.path)))

    def checkpoint(self, which: str = "best") -> Checkpoint:
        """The one with the lowest validation loss ("best"), the newest ("last"), or a step's number.

        Raises ValueError naming the steps there are.
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

    def load_model(self, checkpoint: str = "best", device: str | torch.device = "cpu", *, ema: bool = False) -> Model:
        """The model with a checkpoint's weights, or their moving average, ready to use (eval mode).

        Raises ValueError where the average was not kept.
        """
        model = Model(self.config.model)
        self.checkpoint(checkpoint).load_weights(model, ema=ema)
        return model.to(device).eval()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to log.csv; what was not measured stays empty. The first line tells what columns there are.

        On a full disk it waits in memory.
        """
        path, text = self.path / "log.csv", io.StringIO()
        if begun := self.journal.first_line(path):
            columns = begun.split(",")
        else:
            columns = [*COLUMNS, *(name for name in line if name in ASKED or name.startswith("grad_norm."))]
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        if not begun:
            writer.writeheader()
        writer.writerow(line)
        self.journal.append(path, text.getvalue().encode())

    def append_samples(self, step: int, samples: Sequence[dict[str, str]]) -> None:
        """Add texts to samples.jsonl. On a full disk they wait in memory."""
        lines = [json.dumps({"step": step} | sample) + "\n" for sample in samples]
        self.journal.append(self.path / "samples.jsonl", "".join(lines).encode())

    def samples(self) -> list[dict[str, Any]]:
        """Texts written while training, oldest first: step, prompt, text."""
        path = self.path / "samples.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def forget_after(self, step: int) -> None:
        """Drop what was written after `step`, where a run goes on, and what a kill left half done."""
        log, samples = self.path / "log.csv", self.path / "samples.jsonl"
        if log.exists() and (lines := complete_lines(log)):
            kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
            write_text(log, lines[0] + "".join(kept))
        else:
            log.unlink(missing_ok=True)
        if samples.exists():
            write_text(samples, "".join(line for line in complete_lines(samples) if json.loads(line)["step"] <= step))
        for name in ("grades.json", "loss.png"):
            (self.path / name).unlink(missing_ok=True)
        for unfinished in self.path.glob("checkpoints/.*.tmp"):
            shutil.rmtree(unfinished)

    def save(self, model: nn.Module, optimizer, progress: Progress, average: nn.Module | None = None) -> None:
        """Write a checkpoint, whole or not at all; then drop those beyond the newest few and the best.

        Raises NotWritten where it cannot be written; the checkpoints before it are as they were.
        """
        self.journal.flush()  # lest a power cut leave a log that ends before its checkpoint
        save(self.path / "checkpoints" / f"step_{progress.step:08d}", model, optimizer, progress, average)
        self._prune()

    def _prune(self) -> None:
        saved = self.checkpoints()
        kept = {c.path for c in saved[-self.config.train.keep_checkpoints:]}
        try:
            if best := best_of(saved):
                kept.add(best.path)
            for checkpoint in saved:
                if checkpoint.path not in kept:
                    remove(checkpoint.path)
        except (OSError, ValueError) as error:  # there is one more than asked for, and no harm
            warn(f"old checkpoints are kept: {error}")

    def drop_damaged(self) -> list[str]:
        """Remove the checkpoints that are not what was saved; a sentence on each.

        Raises ValueError, and removes nothing, where none is whole.
        """
        restore_interrupted(self.path / "checkpoints")
        saved = self.checkpoints()
        damaged = {checkpoint.path: problem for checkpoint in saved if (problem := checkpoint.problem())}
        if damaged and len(damaged) == len(saved):
            raise ValueError(f"{self.name} has no whole checkpoint ({'; '.join(damaged.values())}): to begin again, "
                             f"delete {self.path / 'checkpoints'}")
        for path in damaged:
            remove(path)
        return list(damaged.values())


def saved_runs() -> list[str]:
    """The names of the runs in models/."""
    return saved_names(MODELS)


def there_are(wanted: str = "") -> str:
    """The saved runs, for a sentence; of many the nearest to what was wanted."""
    return list_names(saved_runs(), wanted)


def require_locks() -> None:
    """Raise ValueError where the system cannot keep two processes from training the same run."""
    if fcntl is None:
        raise ValueError("training needs the file locks of fcntl, which this system lacks: use Linux, macOS or WSL")


def require_free(name: str) -> Path:
    """The folder of a new run. Raises ValueError where the name is taken: a run is never overwritten."""
    path = MODELS / name
    if path.exists():
        raise ValueError(f"train.name={name} is taken by {path}: choose another name, go on with "
                         f"--resume {name}, or delete the folder")
    return path


def free_name(stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, ... where it is taken."""
    number, name = 1, stem
    while (MODELS / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def environment() -> dict[str, Any]:
    """What a run depends on besides its configuration."""
    commit = ""
    if git := shutil.which("git"):
        commit = subprocess.run([git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT,
                                capture_output=True, text=True, check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
            "processor": platform.machine(), "threads": torch.get_num_threads(), "commit": commit or None,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
