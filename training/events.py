"""What is scheduled after a step, its results, and the timer of a run."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from config import TrainConfig
from run_store.checkpoint import Progress
from training.evaluation import Evaluation
from training.stopping import Stop


class Events:
    """What is scheduled after a step."""

    def __init__(self, step: int, cfg: TrainConfig):
        self.last, self.eval_tokens = step == cfg.steps, cfg.eval_tokens
        self.checkpoint = step % cfg.checkpoint_every == 0 or self.last
        self.evaluation = step % cfg.eval_every == 0 or self.checkpoint
        self.samples = step % cfg.sample_every == 0 or self.last
        self.line = step % cfg.log_every == 0 or self.evaluation


@dataclass
class Results:
    """Evaluation results and samples of a step, if any were scheduled."""

    evaluation: Evaluation | None = None
    val_loss: float | None = None  # on the same tokens at every step, to compare checkpoints
    averaged: Evaluation | None = None  # of the moving average of the weights
    samples: Sequence[dict[str, str]] = ()
    others: dict[str, float | None] = field(default_factory=dict)  # see Setup.evaluate_others

    @property
    def is_finite(self) -> bool:
        return self.evaluation is None or math.isfinite(self.evaluation.loss)


class Timer:
    """The seconds of a run over all its sessions, and its speed since the last line of the log."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.began = time.perf_counter() - progress.seconds
        self.begin_line()

    def begin_line(self) -> None:
        self.line_seconds, self.line_tokens = 0.0, self.progress.tokens

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @contextlib.contextmanager
    def step(self, stop: Stop) -> Iterator[None]:
        """Time a step."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.line_seconds += took
        stop.after_step(took)

    def tokens_per_second(self) -> float | None:
        """The speed of the steps since the last line; None if there was none."""
        return (self.progress.tokens - self.line_tokens) / self.line_seconds if self.line_seconds else None
