"""How long a step of a configuration takes, measured in a process of its own."""

import json
import sys
import time
from pathlib import Path

from config import Config, load_config, replace
from memory_prediction.process import choose_allocator
from run_store.atomic_files import write_text
from tools import pick_device
from training.setup import prepare_run

WARM_UP_STEPS = 2
LEAST_SECONDS = 1.0  # of measured steps


def main() -> None:
    """Write {"step_seconds": ...}: `step_timing:main CONFIG ALLOCATOR RESULT`."""
    config, allocator, result = sys.argv[1:]
    choose_allocator(allocator)
    write_text(Path(result), json.dumps({"step_seconds": step_seconds(load_config(Path(config)))}))


def step_seconds(cfg: Config) -> float:
    """Seconds of a training step at the full batch, without the first steps."""
    cfg = replace(cfg, train=replace(cfg.train, ramp_tokens=None))
    setup = prepare_run(cfg, pick_device(cfg.train.device))
    state = setup.make_state(resumed=True)  # the values of weights do not matter
    steps, began = 0, 0.0
    while steps <= WARM_UP_STEPS or time.perf_counter() - began < LEAST_SECONDS:
        if steps == WARM_UP_STEPS:
            began = time.perf_counter()
        taken = [setup.batches[number].to(setup.device) for number in setup.schedule.passes(steps)]
        state.step(taken, number=steps + 1, lr=1e-6, noise=[])  # waits for its loss, on a GPU too
        steps += 1
    return (time.perf_counter() - began) / (steps - WARM_UP_STEPS)
