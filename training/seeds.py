"""`python train.py --seeds N`: one configuration, trained with N seeds, each run in a process of its own.

A process of its own does what `python train.py --train.seed K` does alone, so it gives the same bits.
"""

import math
import os
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import Popen

from rich.console import Console

import runs
from config import Config, override, save_config
from configuration.command_line import complain, print_line
from run_store.listing import DIVERGED
from runs import Run, is_finished, is_there, require_free
from training.saving import require_same
from training.setup import Settler
from training.stopping import follow_parent
from training.transfer import find_source

GO_ON = "the same command goes on with what is missing"
DIVERGENCE = "diverged"
SHOWN = {"val_loss": "val loss", "bits_per_byte": "bits/byte"}  # columns of the log, and what they are called


class Signals:
    """Notes SIGINT, SIGTERM and SIGHUP, and has the child that runs save and end; a second SIGINT ends it at once."""

    def __init__(self):
        self.first: int | None = None
        self.child: Popen | None = None

    @contextmanager
    def listening(self) -> Iterator["Signals"]:
        """Note them inside the block, unless the caller ignores them, as nohup does."""
        heard = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                 if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        is_second, self.first = self.first is not None, self.first or number
        if self.child is not None and not is_second:
            self.child.send_signal(signal.SIGTERM)
        elif number == signal.SIGINT and is_second:
            if self.child is None:
                raise KeyboardInterrupt
            self.child.send_signal(signal.SIGINT)

    def wait_for(self, child: Popen) -> int:
        """The exit status of a child, negative if a signal ended it."""
        self.child = child
        if self.first is not None:  # it came while the child started
            child.send_signal(signal.SIGTERM)
        try:
            return child.wait()
        finally:
            self.child = None


def train_seeds(cfg: Config, stem: str, count: int, *, force: bool = False) -> int:
    """Train `count` runs with the seeds train.seed, train.seed + 1, ...; print a summary and return the exit status.

    Runs are called STEM-seed-K. Finished ones are left out, and an interrupted one goes on; so the same call continues.
    A seed whose loss diverges is left out of the summary, and the status is 1.
    Raises ValueError, before anything is trained, if a name is taken by anything but the same run.
    """
    console = Console()
    with Signals().listening() as signals, tempfile.TemporaryDirectory() as folder:
        configs = plan_seeds(cfg, stem, count)
        for number, one in enumerate(configs, 1):
            ended = how_ended(one.train.name)
            print_line(console, f"run {number} of {count}: {one.train.name}{ended and f', which has {ended}'}")
            if not ended and (status := train_one(one, signals, Path(folder), force=force)):
                return status
    for line in summary(configs, stem):
        print_line(console, line)
    return int(any(how_ended(one.train.name) == DIVERGENCE for one in configs))


def train_one(cfg: Config, signals: Signals, folder: Path, *, force: bool) -> int:
    """Train a run to its end in a process of its own; return the status to exit with, 0 = go on with the next."""
    name = cfg.train.name
    status = 0 if signals.first else signals.wait_for(start(cfg, folder, force=force))
    if signals.first:
        complain(f"stopped by {signal.Signals(signals.first).name}; {GO_ON}")
        return 128 + signals.first
    if status < 0:
        complain(f"error: {name} was ended by {signal.Signals(-status).name}; {GO_ON}")
        return 128 - status
    return 0 if how_ended(name) else status or 1  # the child has said why


def plan_seeds(cfg: Config, stem: str, count: int) -> list[Config]:
    """The configuration of each run. Raises ValueError if a name is taken by another run, or by something else."""
    if cfg.train.init_from:  # the same weights for all, also if their run is trained on
        cfg = override(cfg, {"train.init_from": str(find_source(cfg.train.init_from).path)})
    seeds = range(cfg.train.seed, cfg.train.seed + count)
    configs = [override(cfg, {"train.seed": seed, "train.name": f"{stem}-seed-{seed}"}) for seed in seeds]
    there = [one for one in configs if is_there(one.train.name)]
    for one in configs:
        if one not in there:
            require_free(one.train.name)
    settle = Settler()
    for one in there:
        require_same(settle(one), "--train.name")
    return configs


def start(cfg: Config, folder: Path, *, force: bool) -> Popen:
    """Begin the run that a configuration names, or go on with it, in a process that no signal of the terminal reaches.

    The configuration is written to a file in `folder`.
    """
    name = cfg.train.name
    words = ["--resume", name]
    if not is_there(name):
        words = ["--config", str(folder / f"{name}.json")]
        save_config(cfg, folder / f"{name}.json")
    return Popen([sys.executable, str(runs.ROOT / "train.py"), *words, *["--force"] * force],
                 env=os.environ | {"SHAPESHIFTER_MODELS": str(runs.MODELS)}, process_group=0,
                 preexec_fn=partial(follow_parent, signal.SIGTERM))  # a command that is killed leaves none behind


def how_ended(name: str) -> str:
    """"finished", "diverged", which it would again, or "" = it is not at its end."""
    if is_finished(name):
        return "finished"
    return DIVERGENCE if is_there(name) and (runs.MODELS / name / DIVERGED).exists() else ""


def summary(configs: Sequence[Config], stem: str) -> list[str]:
    """The mean over the finished seeds of what was measured last, and how to compare them with others."""
    names = {one.train.name: one.train.seed for one in configs}
    done = [name for name in names if is_finished(name)]
    lines = [f"{name} has diverged and does not count" for name in names if name not in done]
    if not done:
        return lines
    logs = [Run(name).log() for name in done]
    means = [f"{label} {mean_of([float(log[column].dropna().iloc[-1]) for log in logs])}"
             for column, label in SHOWN.items()]
    seeds = ", ".join(str(names[name]) for name in done)
    what = f"seed {seeds}" if len(done) == 1 else f"seeds {seeds}, mean ± standard deviation (± standard error)"
    return [*lines, f"\n{stem}, {what}: {', '.join(means)}",
            f"compare with others: python experiments/compare.py {shlex.join(done)} OTHER-RUN"]


def mean_of(values: Sequence[float]) -> str:
    """A mean, for two values and more with the standard deviation (n - 1) and the standard error of the mean."""
    mean = f"{statistics.fmean(values):.4f}"
    if len(values) == 1:
        return mean
    deviation = statistics.stdev(values)
    return f"{mean} ± {deviation:.4f} (± {deviation / math.sqrt(len(values)):.4f})"
