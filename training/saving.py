"""Checkpoints of a run in training: resuming from the newest, saving, and the message when training is stopped."""

import contextlib
from collections.abc import Iterator
from functools import cached_property

from rich.console import Console

from config import Config, diff, get
from configuration.command_line import print_line, warn
from run_store.atomic_files import write_text
from run_store.checkpoint import Progress
from run_store.checkpoint_files import NotWritten
from run_store.listing import DIVERGED
from runs import Run, is_there
from training.events import Events
from training.failing import Agreed
from training.step import TrainState
from training.stopping import EXIT_STATUS, Stop, Stopped
from training.writing import Writer, place_of

# flags that may differ when a run is resumed; any other would make it another run
MAY_CHANGE = (*(f"train.{name}" for name in (
    "steps", "tokens", "epochs", "time_limit", "memory_limit", "device", "compile", "shard", "log_every", "eval_every",
    "final_eval_share", "sample_every", "checkpoint_every", "keep_checkpoints", "graded_stories", "trackers")),
    "data.cache_dir", "data.workers", "data.prefetch")


def require_changeable(run: Run, cfg: Config) -> None:
    """Raise ValueError if `cfg` changes a flag of the run that is not in MAY_CHANGE, or its weights do not fit."""
    wrong = [f"{flag}={after} (it has {before})" for flag, (before, after) in diff(run.config, cfg).items()
             if flag not in MAY_CHANGE]
    if wrong:
        raise ValueError(f"--resume {run.name} cannot change {', '.join(wrong)}, only {', '.join(MAY_CHANGE)}: train a "
                         f"new run with --init-from {run.name}")
    run.require_fitting_newest()


def require_same(cfg: Config, flag: str) -> None:
    """Raise ValueError if there is a run of the configuration's name that was trained with other flags.

    `flag` is the one that gives it another name.
    """
    name = cfg.train.name
    if not is_there(name):
        return
    free = {*MAY_CHANGE} - {"train.steps"}
    free |= {flag for flag in ("model.vocab_size", "model.engram.eos_id") if get(cfg, flag) is None}  # the tokenizer's
    for changed, (saved, planned) in diff(Run(name).config, cfg).items():
        if changed not in free:
            raise ValueError(f"{name} is there, and was trained with {changed}={saved}, not {planned}: choose another "
                             f"{flag}, or delete it")


def load_newest(run: Run, cfg: Config, state: TrainState) -> Progress:
    """Load the newest intact checkpoint, or return fresh progress if there is none; `cfg` becomes the run's.

    The first process of a group alone changes the run's folder.

    Raises ValueError if `cfg` has fewer steps than the run has taken.
    """
    group = state.group
    for problem in run.drop_damaged() if group.is_first else ():
        warn(f"{problem}; going on from the newest whole checkpoint")
    group.wait()
    saved = run.checkpoints()
    progress = Progress()
    if saved:
        model, average, optimizer = state.lasting()
        progress = saved[-1].load_training(model, optimizer, average)
    if cfg.train.steps < progress.step:
        raise ValueError(f"train.steps={cfg.train.steps} is less than the {progress.step} that {run.name} has taken: "
                         "use more")
    group.wait()  # until all have read what the first may delete
    if not group.is_first:
        run.config = cfg
        return progress
    last_line = progress.logged_steps // run.config.train.log_every * run.config.train.log_every
    run.change(cfg)
    if progress.step < cfg.train.steps or not run.is_finished:
        run.forget_after(progress.logged_steps)
        there = last_line and (run.path / "log.csv").exists()
        logged = max((int(step) for (step,) in run.points("step")), default=0) if there else 0
        if logged < last_line:
            warn(f"{run.path / 'log.csv'} ends at step {logged}: its lines up to step {last_line} are lost")
    return progress


class Diverged(Agreed):
    """The loss, the gradient or a weight is no longer finite; the last checkpoint is kept."""

    def __init__(self, run: Run, step: int, found: str, where: str = ""):
        super().__init__(run, step, found, where)
        self.run, self.step, self.found = run, step, "; ".join(filter(None, (found, where)))

    def __str__(self) -> str:
        return self._sentence

    @cached_property
    def _sentence(self) -> str:
        """Made when it is told: by then the newest checkpoint is written."""
        good = next((saved.path for saved in reversed(self.run.checkpoints()) if not saved.not_finite()), None)
        kept = f"the last good checkpoint is {good}" if good else "there was no checkpoint yet"
        return f"step {self.step}: {self.found}; {kept}; a lower --train.lr often helps"


class Interrupted(Agreed):
    """Training was stopped, and a checkpoint was written."""

    def __init__(self, run: Run, step: int, cause: str):
        self.exit_status = EXIT_STATUS[cause]
        reason = f" by train.time_limit={run.config.train.time_limit}" if cause == "time limit" else ""
        super().__init__(f"stopped{reason} after step {step}, which is saved; go on with: "
                         f"python train.py --resume {run.name}")


class Saver:
    """Saves a run, when that is due and when training is stopped. If the disk refuses a checkpoint, training goes on.

    If it `copies`, training goes on as soon as what is to be saved is copied: a thread writes the copy.
    """

    def __init__(self, run: Run, state: TrainState, progress: Progress, stop: Stop, *, copies: bool = False):
        self.run, self.state, self.progress, self.stop, self.copies = run, state, progress, stop, copies
        stop.expect_saves_of(12 * state.model.num_parameters())  # float32: the weight and two optimizer states
        self._writer = Writer(run, stop, state.group, saved=place_of(progress) if run.checkpoints() else None)

    def save_if_due(self, events: Events) -> None:
        """Write a checkpoint if this step has one."""
        if events.checkpoint:
            self.save(is_last=events.last)

    def save(self, *, is_last: bool = False) -> None:
        """Write a checkpoint, or warn. Raises NotWritten if the last one, or a part of the log, cannot be written.

        Raises Diverged, and writes nothing, if a weight is not finite.
        """
        if name := self.state.not_finite():
            raise Diverged(self.run, self.progress.step, f"{name} is not finite")
        self._writer.finish()
        self.state.optimizer.eval()
        if is_last:
            self._save_last()
        else:
            self._writer.write(self.state.lasting(), self.progress)

    def _save_last(self) -> None:
        try:
            self._writer.write(self.state.lasting(), self.progress, at_once=True)
        except NotWritten as error:
            raise NotWritten(f"{error}: {self._writer.newest()}; make room and go on with --resume {self.run.name}"
                             ) from error
        if self.state.group.is_first and (problem := self.run.journal.write()):
            raise NotWritten(f"{problem} and are lost: the checkpoint of step {self.progress.step} is whole")

    @contextlib.contextmanager
    def saving_when_stopped(self, console: Console) -> Iterator[None]:
        """Save when training is stopped; then raise Interrupted, or at a time limit print how to resume.

        What Diverged says is kept in the run's folder. In the block checkpoints are written in the background.
        """
        try:
            with self._writer.in_background(self.copies):
                yield
        except Stopped:
            if self.state.group.firsts(self._writer.saved) != place_of(self.progress):
                self.save(is_last=True)
            stopped = Interrupted(self.run, self.progress.step, self.stop.cause)
            if stopped.exit_status:
                raise stopped from None
            print_line(console, str(stopped))
        except Diverged as diverged:
            if self.state.group.is_first:
                with contextlib.suppress(OSError):
                    write_text(self.run.path / DIVERGED, f"{diverged}\n")
            raise

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """For the report after the last step, which can be repeated. Raises NotWritten if the disk is full."""
        try:
            with self.stop.interruptible():
                yield
        except OSError as error:
            raise NotWritten(f"{error.filename} cannot be written ({error.strerror}): the weights are saved; make room "
                             f"and have the rest written by --resume {self.run.name}") from error
