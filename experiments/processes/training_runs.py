"""Saved runs trained side by side, each in a process of its own; finished ones are kept, others go on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import runs
from config import Config, save_config
from experiments.processes.children import Children, Task, last_line
from experiments.processes.gpus import visible_gpus
from runs import is_finished, is_there
from training.saving import require_same

LIVES = 3  # of a run whose process is ended from outside
LOST = (143, 130, -2, -9, -15)  # exit statuses of such a process


class Trained(NamedTuple):
    """How the training of a run ended."""

    name: str
    status: int  # exit status of its process
    said: str  # the last line that it printed


def train_each(configs: Sequence[Config], children: Children, *, jobs: int, folder: Path) -> Iterator[Trained]:
    """Train the runs that the configurations name, `jobs` at a time, in this order; give each as it ends.

    Finished runs are left out. A run whose process is ended from outside goes on, LIVES times. What a run prints goes
    to a file in `folder`. Raises Stopped after SIGINT or SIGTERM, when all runs have saved.
    """
    configs, lives = {cfg.train.name: cfg for cfg in configs}, Counter()
    waiting = [name for name in configs if not is_finished(name)]
    while waiting:
        tasks, waiting = [training(configs[name], folder) for name in waiting], []
        for task, status in children.run(tasks, jobs):
            lives[task.name] += 1
            if status in LOST and lives[task.name] < LIVES:
                waiting.append(task.name)
                continue
            said = last_line(task.log).removeprefix("error: ") or f"exit status {status}"
            yield Trained(task.name, status, f"ended from outside {LIVES} times" if status in LOST else said)


def train_all(configs: Sequence[Config], *, jobs: int, folder: Path, on_end: Callable[[runs.Run], None]) -> None:
    """Train all runs as `train_each` does; call `on_end` with each that has finished.

    Raises ValueError if a name belongs to another run, or if a run fails.
    """
    for cfg in configs:
        require_same(cfg, "--name")
    with Children.started(folder, threads=1) as children:
        for name, status, said in train_each(configs, children, jobs=jobs, folder=folder):
            if status:
                raise ValueError(f"{name} has ended with status {status}: {said}")
            on_end(runs.Run(name))


def training(cfg: Config, folder: Path) -> Task:
    """The task that begins the run that a configuration names, or goes on with it; flags and log are in the folder."""
    name = cfg.train.name
    words = ("--resume", name)
    if not is_there(name):
        words = ("--config", str(folder / f"{name}.json"))
        save_config(cfg, folder / f"{name}.json")
    return Task(name, "train:main", words, folder / f"{name}.txt", gpus=visible_gpus(cfg.train.device))
