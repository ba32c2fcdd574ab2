"""From the residual stream to logits, and from logits to the loss."""

import torch
from torch import Tensor, nn

from tools import LoggingModule, log_io

IGNORED = -100  # a target that never counts: padding, or what is not to be learned


class Head(LoggingModule):
    """The logits: a linear map, a factor, and a soft cap c tanh(logits / c).

    The cap as in Gemma 2, arXiv:2408.00118.
    Shape: (b, t, d) -> (b, t, v), in float32.
    """

    def __init__(
        self, dim: int, *, vocab_size: int, bias: bool = False, scale: float = 1.0,
        softcap: float | None = None,
    ):
        super().__init__()
        self.scale, self.softcap = scale, softcap
        self.unembed = nn.Linear(dim, vocab_size, bias=bias)

    @classmethod
    def from_config(cls, cfg) -> "Head":
        return cls(cfg.dim, vocab_size=cfg.padded_vocab_size, bias=cfg.head_bias,
                   scale=cfg.logit_scale, softcap=cfg.logit_softcap)

    @log_io("b t d -> b t v")
    def forward(self, x: Tensor) -> Tensor:
        logits = self.unembed(x).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


class Loss(LoggingModule):
    """Mean cross-entropy in nats per token, plus z_loss * mean(logsumexp(logits)^2).

    The second term keeps logits from drifting: Chowdhery et al. 2022, arXiv:2204.02311, section 5.
    Shape: logits (b, t, v), targets (b, t) int64 -> a scalar. Targets of -100 count in neither; with
    no other target the loss is 0.
    """

    def __init__(self, *, z_loss: float = 0.0):
        super().__init__()
        self.z_loss = z_loss

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over all targets in place of their mean."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        total = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        if self.z_loss:
            squares = logits.logsumexp(-1).square()
            total = total + self.z_loss * squares.where(targets != IGNORED, 0.0).sum()
        return total

    @log_io("b t v, b t -> ")
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.total(logits, targets) / num_targets(targets)


def num_targets(targets: Tensor) -> Tensor:
    """How many targets count, but at least 1."""
    return (targets != IGNORED).sum().clamp(min=1)
