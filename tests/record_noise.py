"""Final losses of runs that differ in nothing but the seed: `python tests/record_noise.py` writes recorded_noise.json.

A small model on `tales`, 60 seeds, a few minutes of one core.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import json
import tempfile

import torch
from rich.console import Console

import runs
import train
from config import load_config, override, to_dict

HERE = Path(__file__).resolve().parent
FLAGS = {"model.dim": 32, "model.num_layers": 1, "model.max_seq_len": 64, "data.val_ratio": 0.001, "train.steps": 60,
         "train.eval_every": 60, "train.checkpoint_every": 60, "train.sample_every": 60, "train.precision": "float32",
         "train.device": "cpu", "sample.max_new_tokens": 1}
COUNT = 60


def main() -> None:
    torch.set_num_threads(1)
    train.Budget.of = lambda *_, **__: None  # its prediction would take longer than the run
    base = override(load_config(HERE.parent / "experiments" / "bases" / "quick.yaml"), FLAGS)
    values = []
    with tempfile.TemporaryDirectory() as folder:
        runs.MODELS = Path(folder)
        for seed in range(COUNT):
            cfg = override(base, {"train.seed": seed, "train.name": f"seed-{seed}"})
            log = train.train(cfg, console=Console(quiet=True)).log()
            values.append(float(log.bits_per_byte.iloc[-1]))
    found = {"made_by": "python tests/record_noise.py", "torch": torch.__version__, "config": to_dict(base),
             "bits_per_byte": values}
    (HERE / "recorded_noise.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
