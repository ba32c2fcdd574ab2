"""Runs trained side by side, each in a process of its own; those that are finished stay, others go on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from config import Config
from experiments.searching.children import Children, Task, is_finished, require_same, training
from experiments.searching.jobs import last_line
from runs import Run


def train_all(configs: Sequence[Config], *, jobs: int, folder: Path, on_end: Callable[[Run], None]) -> None:
    """Train the runs that the configurations name, `jobs` at a time, in this order; `on_end` is told of each.

    What a run says goes to a file in `folder`. Raises ValueError where the name is that of another run, and where one
    ends otherwise than finished; Stopped after SIGINT or SIGTERM. Those under way have saved by then.
    """
    for cfg in configs:
        require_same(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [training(cfg, folder) for cfg in configs if not is_finished(cfg.train.name)]
    with Children.started(folder, threads=1) as children:
        for task, status in children.run(tasks, jobs):
            require_success(task, status)
            on_end(Run(task.name))


def require_success(task: Task, status: int) -> None:
    """Raise ValueError, with what a process said last, where it has failed."""
    if status:
        said = last_line(task.log).removeprefix("error: ")
        raise ValueError(f"{task.name} has ended with status {status}: {said or 'without a word'}")
