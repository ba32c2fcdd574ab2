"""Runs that take a second: a text, a configuration, and what two runs must have in common."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from config import AttentionConfig, Config, ModelConfig, override
from runs import TIMED, Run

WORDS = ["once", "upon", "a", "time", "the", "old", "fox", "saw", "red", "hen", "and", "ran", "home"]
DATA = {"name": "text", "fingerprint": "f", "train_tokens": 1, "train_bytes": 1, "val_bytes": 1,
        "val_tokens_per_byte": 1.0, "floor_bits_per_byte": None}  # what data.json says of a text


def write_text_file(path: Path, *, num_words: int = 400, seed: int = 0) -> Path:
    """A text of so many words."""
    choice = random.Random(seed).choice
    path.write_text(" ".join(choice(WORDS) for _ in range(num_words)) + ".\n", encoding="utf-8")
    return path


def small_run_config(folder: Path, changes: dict[str, Any] | None = None) -> Config:
    """A character model on the folder's text.txt, 24 steps with dropout; `changes` win."""
    text = folder / "text.txt"
    if not text.exists():
        write_text_file(text)
    model = ModelConfig(dim=16, num_layers=2, hidden_dim=24, attention=AttentionConfig(num_heads=2, dropout=0.1),
                        max_seq_len=16,
                        residual_dropout=0.1, qk_norm="none")
    return override(Config(model=model), {
        "data.name": str(text), "data.cache_dir": str(folder / "cache"), "tokenizer.kind": "char",
        "train.optimizer": "muon", "train.lr": 0.01, "train.precision": "float32",
        "train.name": "toy", "train.steps": 24, "train.batch_size": 4, "train.log_every": 4,
        "train.eval_every": 6, "train.checkpoint_every": 6, "train.sample_every": 12,
        "sample.num_samples": 2, "sample.max_new_tokens": 8, **(changes or {})})


def weights(run: Run) -> dict[str, torch.Tensor]:
    """The newest weights as they are on the disk."""
    return load_file(run.checkpoint("last").path / "model.safetensors")


def untimed_log(run: Run) -> pd.DataFrame:
    return run.log().drop(columns=list(TIMED))


def assert_same_run(run: Run, expected: Run) -> None:
    """The same weights, log and samples, bit for bit; the timed columns excepted."""
    pd.testing.assert_frame_equal(untimed_log(run), untimed_log(expected), check_exact=True)
    assert run.samples() == expected.samples()
    ours, theirs = weights(run), weights(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}
