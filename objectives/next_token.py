"""Predict the next token."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data import IGNORED, Batch
from model import Hidden, Model
from objectives.base import Losses, Objective, Scores
from tools import LoggingModule, log_io


class CrossEntropy(LoggingModule):
    """The nats of all targets, with `z_loss` the squares of logsumexp(logits), and with `accuracy` the number of
    targets that are the likeliest token; sums, not means.

    Shape: logits (b, t, v), targets (b, t) int64 -> scalars. Targets of -100 do not count.
    """

    def __init__(self, *, z_loss: bool = False, accuracy: bool = False):
        super().__init__()
        self.z_loss, self.accuracy = z_loss, accuracy

    @log_io("b t v, b t -> ")
    def forward(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        logits, targets = logits.flatten(0, 1), targets.flatten()
        nats = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        sums = [nats]
        if self.z_loss:
            sums.append(logits.logsumexp(-1).square().where(targets != IGNORED, 0.0).sum())
        if self.accuracy:
            sums.append((logits.detach().argmax(-1) == targets).sum().float())
        return sums


class NextToken(Objective):
    """Mean cross-entropy of the next token in nats, plus z_loss * mean(logsumexp(logits)^2).

    The second term keeps logits from drifting: Chowdhery et al. 2022, arXiv:2204.02311, section 5. Without targets
    the loss is 0. With `loss_chunk` the logits exist for that many positions of each row at a time, and are recomputed
    for the gradient: less memory, the same loss. With `log_accuracy` the share of targets that were the likeliest token
    is a part of the losses, which is not learned from.
    """

    own = "next_token"

    def __init__(self, model: Model, *, loss_chunk: int | None = None, log_accuracy: bool = False):
        super().__init__(model)
        self.loss_chunk, self.z_loss = loss_chunk, model.cfg.z_loss
        self.loss = CrossEntropy(z_loss=self.z_loss > 0, accuracy=log_accuracy)
        self.names = [self.own, *["z"] * self.loss.z_loss, *["train_accuracy"] * log_accuracy]

    @log_io
    def forward(self, batch: Batch) -> Losses:
        hidden = self.read(batch)
        count = num_targets(batch.y)
        means = {name: total / count for name, total in zip(self.names, self.sums(hidden, batch.y), strict=True)}
        others = [*([self.z_loss * means["z"]] if self.z_loss else []), *hidden.losses.values()]
        parts = means | hidden.losses
        return Losses(sum(others, means[self.own]), {name: part.detach() for name, part in parts.items()})

    def read(self, batch: Batch) -> Hidden:
        """The hidden states of a batch, before the head."""
        return self.model.read(batch.x, documents=batch.documents)

    def sums(self, hidden: Hidden, targets: Tensor) -> list[Tensor]:
        """The sums of CrossEntropy, over all positions at once or in chunks."""
        if self.loss_chunk is None:
            return self.loss(self.model.predict(hidden), targets)
        chunks = [checkpoint(self._sums_of_chunk, part, wanted, use_reentrant=False)
                  for part, wanted in hidden.chunks(targets, self.loss_chunk)]
        return [torch.stack(each).sum() for each in zip(*chunks, strict=True)]

    def _sums_of_chunk(self, hidden: Hidden, targets: Tensor) -> list[Tensor]:
        return self.loss(self.model.predict(hidden), targets)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        hidden = self.read(batch)
        pairs = [self._score(self.model.predict(part), wanted, likeliest(top_k))
                 for part, wanted in hidden.chunks(batch.y, self.loss_chunk)]
        return Scores(*(torch.cat(each, dim=1) for each in zip(*pairs, strict=True)))

    @staticmethod
    def _score(logits: Tensor, targets: Tensor, top: Callable[[Tensor], Tensor]) -> Scores:
        nats = nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")  # (b*t,)
        return Scores(nats.view_as(targets), top(logits))


def likeliest(k: int) -> Callable[[Tensor], Tensor]:
    """A function from logits (..., v) to the k likeliest tokens (..., k); of equal ones, the first if k is 1."""
    if k == 1:
        return lambda logits: logits.argmax(-1, keepdim=True)
    return lambda logits: logits.topk(min(k, logits.shape[-1])).indices


def num_targets(targets: Tensor) -> Tensor:
    """The number of targets that count, at least 1."""
    return (targets != IGNORED).sum().clamp(min=1)
