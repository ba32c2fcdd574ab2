"""A model in training, and one step of it: what train.py repeats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from config import TrainConfig
from data import Batch
from model import Model
from optim import MovingAverage, make_optimizer
from tools import trace
from training.gradients import GradientWatch


@dataclass(frozen=True)
class Step:
    """What a step has shown."""

    loss: float  # nats per token, before it
    grad_norm: float  # before it was clipped
    num_targets: int


class NotFinite(Exception):
    """The loss or the gradient of `batch` is no number any more; the weights have not moved."""

    def __init__(self, found: str, batch: Batch):
        super().__init__(found)
        self.batch = batch


class Learner:
    """A model with what moves its weights, follows them, and watches their gradient."""

    def __init__(self, model: Model, cfg: TrainConfig):
        self.model, self.grad_clip = model, cfg.grad_clip
        self.optimizer = make_optimizer(model, cfg)
        self.average = MovingAverage(model, cfg.ema_decay) if cfg.ema_decay else None
        self.watch = GradientWatch(cfg)
        self.device = next(model.parameters()).device
        self.forward = torch.compile(model) if cfg.compile else model
        self.precision = torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.precision == "bfloat16")

    def step(self, batches: Sequence[Batch], *, number: int, lr: float, noise: list[tuple[float, float]]) -> Step:
        """Take step `number`, from 1, by the mean gradient over all targets of the batches.

        Adds to `noise` what GradientWatch tells of it. Raises NotFinite before the weights move.
        """
        self.optimizer.set_lr(lr)
        self.optimizer.train()
        loss, num_targets = 0.0, sum(batch.num_targets for batch in batches)
        for batch in batches:
            passes_of_its_size = num_targets / batch.num_targets
            with self.precision:  # each target weighs the same, whichever pass it is in
                part = self.forward(batch.x, batch.y, documents=batch.documents) / passes_of_its_size
            part.backward()
            self.watch.after_pass(self.model)
            loss += part.item()
            if not math.isfinite(loss):
                break
        self.watch.after_step(self.model, num_targets / len(batches), noise)
        grad_norm = clip(self.model, self.grad_clip)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NotFinite(f"loss {loss:g}, gradient norm {grad_norm:g}", batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.model, number)
        return Step(loss, grad_norm, num_targets)

    def first_bad_module(self, batch: Batch) -> str:
        """Where a NaN or Inf first comes up, in a traced repetition of a forward and backward pass."""
        self.model.zero_grad()
        with trace(self.model, grad=True) as t:
            with self.precision:
                loss = self.model(batch.x, batch.y, documents=batch.documents)
            loss.backward()
        return str(t.first_nonfinite or "no NaN or Inf when the step is repeated")


def clip(model: nn.Module, limit: float | None) -> float:
    """Scale the gradient down to `limit`; return its norm before."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if limit is None else limit)
    return norm.item()
