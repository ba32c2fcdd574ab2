"""A saved run: a folder with its configuration, tokenizer, log, samples and checkpoints.

    models/<name>/
        config.json  data.json  environment.json  tokenizer/     what it was
        log.csv  samples.jsonl  grades.json  loss.png            how it went
        checkpoints/step_00000500/                               model.safetensors, optimizer.pt, progress.json
"""

import csv
import json
import math
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from config import Config, load_config, save_config
from model import Model
from tokenizer import Tokenizer, load_tokenizer

ROOT = Path(__file__).resolve().parent
MODELS = Path(os.environ.get("SHAPESHIFTER_MODELS", ROOT / "models"))  # the tests' runs go elsewhere
COLUMNS = ("step", "tokens", "seconds", "flops", "train_loss", "val_loss", "bits_per_byte", "perplexity",
           "accuracy", "lr", "grad_norm", "tokens_per_second")
TIMED = ("seconds", "tokens_per_second")  # columns that no seed can repeat


@dataclass
class Progress:
    """Where a run stands; with the weights and the optimizer's state, all that going on needs."""

    step: int = 0  # optimizer steps taken
    tokens: int = 0  # targets learned from
    seconds: float = 0.0  # spent so far, over all sittings
    flops: float = 0.0  # of forward and backward
    val_loss: float | None = None  # at this step, nats per token; None = not evaluated here
    recent_losses: list[float] = field(default_factory=list)  # of the steps since the last line of the log


class Run:
    """A run's folder, given by its path or its name in models/.

    Raises ValueError with one sentence where there is no whole run.
    """

    def __init__(self, where: str | Path):
        path = Path(where)
        self.path = path if path.exists() or path.is_absolute() else MODELS / path
        if not (self.path / "config.json").is_file():
            raise ValueError(f"{where} is no run: expected {self.path / 'config.json'}; there are "
                             f"{', '.join(saved_runs()) or 'no runs yet'}")

    @classmethod
    def create(cls, name: str, cfg: Config, tokenizer: Tokenizer, data: dict[str, Any]) -> "Run":
        """Make the folder and write down what stands before the first step.

        Raises ValueError where the name is taken: a run is never overwritten.
        """
        path = MODELS / name
        if path.exists():
            raise ValueError(f"train.name={name} is taken by {path}: choose another name, go on with "
                             f"--resume {name}, or delete the folder")
        unfinished = path.with_name(f".{name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        tokenizer.save(unfinished / "tokenizer")
        write_text(unfinished / "data.json", json.dumps(data, indent=2) + "\n")
        write_text(unfinished / "environment.json", json.dumps(environment(), indent=2) + "\n")
        save_config(cfg, unfinished / "config.json")
        unfinished.rename(path)
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> Config:
        return load_config(self.path / "config.json")

    @cached_property
    def data(self) -> dict[str, Any]:
        """What it learned from: sizes of both parts, and the least bits per byte possible where known."""
        return json.loads((self.path / "data.json").read_text(encoding="utf-8"))

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path / "tokenizer")

    def log(self) -> pd.DataFrame:
        """The log's lines, one a row. Raises ValueError where there is none, or it is damaged."""
        try:
            return pd.read_csv(self.path / "log.csv", float_precision="round_trip")
        except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{self.path / 'log.csv'} cannot be read: {error}") from None

    def checkpoints(self) -> list["Checkpoint"]:
        """The whole ones, oldest first. A save that was cut short never got its name."""
        return sorted((Checkpoint(path) for path in self.path.glob("checkpoints/step_*")), key=lambda c: c.path.name)

    def checkpoint(self, which: str = "best") -> "Checkpoint":
        """The one with the lowest validation loss ("best"), the newest ("last"), or a step's number.

        Raises ValueError naming the steps there are.
        """
        saved = self.checkpoints()
        if saved and which == "last":
            return saved[-1]
        if saved and which == "best":
            return best_of(saved) or saved[-1]
        for checkpoint in saved:
            if which.isdigit() and checkpoint.progress.step == int(which):
                return checkpoint
        steps = ", ".join(str(c.progress.step) for c in saved) or "none yet"
        raise ValueError(f"checkpoint={which} is not in {self.path}: use best, last or a step ({steps})")

    def load_model(self, checkpoint: str = "best", device: str | torch.device = "cpu") -> Model:
        """The model with a checkpoint's weights, ready to use (eval mode)."""
        model = Model(self.config.model)
        self.checkpoint(checkpoint).load_weights(model)
        return model.to(device).eval()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to log.csv; what was not measured stays empty."""
        path = self.path / "log.csv"
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if is_new:
                writer.writeheader()
            writer.writerow({name: "" if value is None else value for name, value in line.items()})

    def append_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        with (self.path / "samples.jsonl").open("a", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps({"step": step} | sample) + "\n")

    def samples(self) -> list[dict[str, Any]]:
        """Texts written while training, oldest first: step, prompt, text."""
        path = self.path / "samples.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def forget_after(self, step: int) -> None:
        """Drop lines of log and samples past `step`, which the checkpoint that is gone on from has not seen."""
        log, samples = self.path / "log.csv", self.path / "samples.jsonl"
        if log.exists():
            head, *lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= step]
            write_text(log, head + "".join(kept))
        if samples.exists():
            lines = samples.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(samples, "".join(kept))

    def save(self, model: nn.Module, optimizer, progress: Progress) -> None:
        """Write a checkpoint, whole or not at all; then drop those beyond the newest few and the best."""
        folder = self.path / "checkpoints"
        path = folder / f"step_{progress.step:08d}"
        unfinished = folder / f".{path.name}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_model(model, str(unfinished / "model.safetensors"))
        torch.save({"optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}, unfinished / "optimizer.pt")
        write_text(unfinished / "progress.json", json.dumps(asdict(progress)))
        for file in unfinished.iterdir():
            flush(file)
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
        flush(folder)
        self._prune()

    def _prune(self) -> None:
        saved = self.checkpoints()
        kept = {c.path for c in saved[-self.config.train.keep_checkpoints:]}
        if best := best_of(saved):
            kept.add(best.path)
        for checkpoint in saved:
            if checkpoint.path not in kept:
                shutil.rmtree(checkpoint.path)


class Checkpoint:
    """One saved step: its weights, and what going on from it needs."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def progress(self) -> Progress:
        try:
            return Progress(**json.loads((self.path / "progress.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: progress.json: {error}") from None

    def load_weights(self, model: nn.Module) -> None:
        """Raises ValueError where the file is damaged or belongs to another architecture."""
        try:
            load_model(model, str(self.path / "model.safetensors"))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{self.path} is damaged: model.safetensors: {error}") from None
        except RuntimeError as error:
            raise ValueError(f"{self.path} does not fit its configuration: {' '.join(str(error).split())}") from None

    def load_training(self, model: nn.Module, optimizer) -> Progress:
        """Weights, the optimizer's state and the random state, as they were; returns where that was."""
        self.load_weights(model)
        try:
            state = torch.load(self.path / "optimizer.pt", weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{self.path} is damaged: optimizer.pt: {' '.join(str(error).split())}") from None
        return self.progress


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest validation loss, the earliest of equals; None where none was evaluated."""
    evaluated = [c for c in checkpoints if c.progress.val_loss is not None]
    return min(evaluated, key=lambda c: c.progress.val_loss, default=None)


def saved_runs() -> list[str]:
    """The names of the runs in models/."""
    return sorted(path.parent.name for path in MODELS.glob("[!.]*/config.json"))


def free_name(stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, ... where it is taken."""
    number, name = 1, stem
    while (MODELS / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def plot_loss(runs: list[Run], path: Path) -> None:
    """Draw validation and training loss in bits per byte against tokens, with the floor, as a PNG."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for run in runs:
        log, bits = run.log(), run.data["val_tokens_per_byte"] / math.log(2)
        seen = log.dropna(subset="val_loss")
        (line,) = axes.plot(seen.tokens, seen.bits_per_byte, "o-", markersize=3, label=f"{run.name}, validation")
        axes.plot(log.tokens, log.train_loss * bits, color=line.get_color(), alpha=0.35, label=f"{run.name}, training")
    floors = {run.data["floor_bits_per_byte"] for run in runs} - {None}
    for floor in floors:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"entropy of the text, {floor:.3f}")
    axes.set(xlabel="tokens", ylabel="bits per byte", yscale="log")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def environment() -> dict[str, Any]:
    """What a run depends on besides its configuration."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT,
                            capture_output=True, text=True, check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
            "processor": platform.machine(), "threads": torch.get_num_threads(), "commit": commit or None,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def write_text(path: Path, text: str) -> None:
    """Replace a file's text, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    flush(unfinished)
    unfinished.replace(path)


def flush(path: Path) -> None:
    """Have a file or a folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
