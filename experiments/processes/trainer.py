"""Trains the runs of an experiment side by side, tells of each, and remembers which would fail again."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import runs
from config import Config
from experiments.processes.children import Children
from experiments.processes.training_runs import Trained, train_each
from run_store.atomic_files import write_text
from runs import is_finished

Say = Callable[[str], object]


class Trainer:
    """Trains runs whose names are the experiment's; `failures` holds why some did not finish, by their names.

    `result` describes a finished run. What diverged is kept in diverged.json in the folder.
    """

    def __init__(self, folder: Path, children: Children, *, jobs: int, say: Say, result: Callable[[str], str]):
        self.children, self.jobs, self.say, self.result = children, jobs, say, result
        self.file, self.logs = folder / "diverged.json", folder / "logs"
        known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.diverged = {name: reason for name, reason in known.items() if (runs.MODELS / name).exists()}
        self.failures = dict(self.diverged)  # these would diverge again

    def train(self, configs: Sequence[Config]) -> None:
        """Train those that are neither finished nor known to fail; continue what was ended from outside."""
        configs = {cfg.train.name: cfg for cfg in configs}
        waiting = [cfg for name, cfg in configs.items() if name not in self.failures and not is_finished(name)]
        began, done = time.monotonic(), len(configs) - len(waiting)
        if done:
            self.say(f"going on: {done} of {len(configs)} runs are there")
        for trained in train_each(waiting, self.children, jobs=self.jobs, folder=self.logs):
            done += 1
            said = self._ended(trained)
            self.say(f"{time.monotonic() - began:6.0f} s  {done} of {len(configs)}  {trained.name}: {said}")

    def _ended(self, trained: Trained) -> str:
        """Note how the training of a run ended, and return a description."""
        name, status, said = trained
        if status == 0 and is_finished(name):
            return self.result(name)
        self.failures[name] = said
        if status == 1 and said.startswith("step "):
            self.diverged[name] = said
            write_text(self.file, json.dumps(self.diverged, indent=1) + "\n")
        return said
