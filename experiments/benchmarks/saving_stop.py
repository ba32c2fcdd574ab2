"""The benchmark saving: how long a checkpoint stops training, written at once or copied and written by a thread."""

import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import runs
from config import override, save_config
from experiments.benchmarks.benchmark_options import Saving
from memory_prediction.process import choose_allocator
from presets import at_scale, load_preset
from run_store.checkpoint import Progress
from runs import Run
from tools import pick_device
from training.saving import Saver
from training.setup import Setup, prepare_run
from training.step import TrainState
from training.stopping import Stop


def run(options: Saving, console: Console) -> bool:
    """Print a row for each size: the first save, and the quickest of the later ones."""
    device = pick_device(options.device)
    if device.type == "cpu":
        choose_allocator("fast")
    table = Table("size", "parameters", "at once: first, ms", "later", "copied: first, ms", "later", "written, ms")
    for scale in options.scales:
        setup = prepare_run(override(at_scale(load_preset(options.preset), scale), {
            "data.name": "tales", "data.num_stories": 100, "train.optimizer": options.optimizer,
            "train.batch_size": 1, "train.keep_checkpoints": 1}), device)
        with tempfile.TemporaryDirectory(dir=runs.MODELS.parent) as folder:
            save_config(setup.cfg, Path(folder) / "config.json")
            state = setup.make_state()
            seconds = measure(setup, state, Run(folder), options.rounds)
        first, later = seconds[0], [min(each) for each in zip(*seconds[1:], strict=True)]
        numbers = first[0], later[0], first[1], later[1], later[2]
        table.add_row(scale, f"{state.model.num_parameters():,}", *(f"{1e3 * number:,.0f}" for number in numbers))
    console.print(table)
    return True


def measure(setup: Setup, state: TrainState, run: Run, rounds: int) -> list[tuple[float, float, float]]:
    """The seconds of each round: training stops for a save at once, for a copied one, and that one is written."""
    progress, found = Progress(), []
    batch = setup.batches[0].to(state.device)
    for _ in range(rounds):
        state.step([batch], number=progress.step + 1, lr=1e-5, noise=[])
        progress.step += 1
        at_once, _ = timed_save(Saver(run, state, progress, Stop()))
        progress.step += 1
        found.append((at_once, *timed_save(Saver(run, state, progress, Stop(), copies=True))))
    return found


def timed_save(saver: Saver) -> tuple[float, float]:
    """The seconds for which training stops, and those until the checkpoint is written."""
    began = time.perf_counter()
    with saver.saving_when_stopped(Console(quiet=True)):
        saver.save()
        stopped = time.perf_counter() - began
    return stopped, time.perf_counter() - began
