"""What a fresh process holds that has imported what training needs, measured once."""

import functools
import subprocess
import sys
from pathlib import Path


@functools.cache
def child_baseline_bytes() -> int:
    """`baseline_bytes` of a process that has imported train.py and predicted a run; it takes some seconds."""
    code = ("import train; from memory_prediction.baseline import baseline_bytes; from memory_prediction.process "
            "import choose_allocator; choose_allocator('tight'); from config import Config, override; from "
            "memory_prediction.prediction import predict; predict(override(Config(), {'model.vocab_size': 512})); "
            "print(baseline_bytes())")
    return int(subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parent.parent,
                              capture_output=True, text=True, check=True).stdout)
