"""The state of training, and one training step."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config import TrainConfig
from data import Batch
from model import Model
from modules.across import full, local
from modules.mlps.moe import loads, routers
from objective import Losses, make_objective
from optim import MovingAverage, make_optimizer
from tools import trace
from training.gradients import GradientWatch
from training.group import ALONE, Group
from training.sharding import Whole, sharded
from training.snapshot import Lasting


@dataclass(frozen=True)
class Step:
    """The measurements of a step."""

    loss: float  # nats per target before the step: the objective's own part
    parts: dict[str, float]  # every other part of the losses
    grad_norm: float  # before clipping
    num_targets: int
    loads: dict[str, float]  # of experts, see modules/mlps/moe.py


class NotFinite(Exception):
    """The loss or the gradient of `batch` is not finite; the weights are unchanged."""

    def __init__(self, found: str, batch: Batch):
        super().__init__(found)
        self.batch = batch


class Useless(Exception):
    """The losses are finite, and nothing is learned from them; the weights are unchanged."""


class TrainState:
    """A model in training, with its objective, optimizer, weight average and gradient measurements."""

    def __init__(self, model: Model, cfg: TrainConfig, group: Group = ALONE):
        self.model, self.grad_clip, self.group = model, cfg.grad_clip, group
        self.objective = make_objective(model, cfg)
        self.average = MovingAverage(model, cfg.ema_decay) if cfg.ema_decay else None
        self.averaged = make_objective(self.average.model, cfg) if self.average else None
        self.sharded = sharded(self.objective, self.averaged, cfg, group.size, group.device)
        self.optimizer = self.sharded.optimizer if self.sharded else make_optimizer(model, cfg)
        self.watch = GradientWatch(cfg)
        self.routers, self.log_expert_load = routers(model), cfg.log_expert_load
        self.device = next(model.parameters()).device
        self.forward = self.objective if self.sharded else group.averaging(
            torch.compile(self.objective) if cfg.compile else self.objective)
        self.precision = torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.precision == "bfloat16")

    def whole(self) -> AbstractContextManager[Whole]:
        """In the block the first process has the weights as one process has them; all must enter it."""
        if self.sharded:
            return self.sharded.gathered(keep=self.group.is_first)
        return nullcontext(Whole(self.objective, self.averaged))

    def lasting(self) -> Lasting:
        """What a checkpoint holds."""
        if self.sharded:
            return self.sharded.lasting()
        return Lasting(self.model, self.average and self.average.model, self.optimizer)

    def step(self, batches: Sequence[Batch], *, number: int, lr: float, noise: list[tuple[float, float]]) -> Step:
        """Take step `number`, from 1, with the mean gradient over all targets of the batches.

        Adds the noise estimates of GradientWatch to `noise`. Raises NotFinite or Useless before the weights
        change.
        """
        self.optimizer.set_lr(lr)
        self.optimizer.train()
        targets, parts = self.group.sums([batch.num_targets for batch in batches]), {}
        num_targets = sum(targets)
        for number_of_pass, (batch, its_targets) in enumerate(zip(batches, targets, strict=True), 1):
            passes_of_its_size = num_targets / its_targets
            losses = self.backward(batch, passes_of_its_size, is_last=number_of_pass == len(batches))
            shares = [losses.total.item(), *((loss / passes_of_its_size).item() for loss in losses.parts.values())]
            total, *shares = self.group.means(shares)
            for name, share in zip(losses.parts, shares, strict=True):
                parts[name] = parts.get(name, 0.0) + share
            self.watch.after_pass(self.model)
            if not math.isfinite(total):
                break
        self.watch.after_step(self.model, num_targets / len(batches), noise)
        grad_norm = clip(self.model, self.grad_clip)
        loss = parts.pop(self.objective.own)
        if not (math.isfinite(total) and math.isfinite(grad_norm)):
            raise NotFinite(f"loss {loss:g}, gradient norm {grad_norm:g}", batch)
        if trouble := self.objective.trouble(parts):
            raise Useless(trouble)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.after_step()
        if self.average:
            self.average.update(self.model, number)
        return Step(loss, parts, grad_norm, num_targets, loads(self.routers, each=self.log_expert_load))

    def backward(self, batch: Batch, passes_of_its_size: float, *, is_last: bool) -> Losses:
        """Compute the losses of a batch and add its gradient, so that each target of the step weighs the same."""
        with self.group.averaged(self.forward, when=is_last or self.watch.noise is not None):
            with self.precision:
                losses = self.forward(batch)
                share = losses.total / passes_of_its_size
            share.backward()
        return losses

    def not_finite(self) -> str | None:
        """The name of a weight, of the model or of the average, that has a NaN or Inf; None = all are finite."""
        models = [("", self.model)] + ([("average of ", self.average.model)] if self.average else [])
        found = next((prefix + name for prefix, model in models for name, tensor in model.state_dict().items()
                      if not is_finite(local(tensor))), None)
        return next(filter(None, self.group.gather(found)), None) if self.sharded else found

    def first_bad_module(self, batch: Batch) -> str:
        """Repeat a forward and backward pass with a trace; name the first module with a NaN or Inf."""
        self.model.zero_grad()
        with trace(self.model, grad=True) as t:
            with self.precision:
                losses = self.objective(batch)
            losses.total.backward()
        return str(t.first_nonfinite or "no NaN or Inf when the step is repeated")


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf. Shape: any."""
    if tensor.is_floating_point() and tensor.numel():
        return math.isfinite(sum(end.item() for end in tensor.aminmax()))  # NaN if one is; 30 times as fast as isfinite
    return bool(tensor.isfinite().all())


def clip(model: nn.Module, limit: float | None) -> float:
    """Clip the norm of the gradient to `limit`; return the norm before."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if limit is None else limit)
    return full(norm).item()
