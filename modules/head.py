"""From the residual stream to logits."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.precision import widen
from tools import LoggingModule, log_io


class Head(LoggingModule):
    """The logits: a linear map, a factor, and a soft cap c tanh(logits / c).

    The cap as in Gemma 2, arXiv:2408.00118.
    Shape: (b, t, d) -> (b, t, v), in float32 (of a model in float64, in float64).
    """

    roles = {"unembed.weight": "head"}  # for the optimizer

    def __init__(
        self, dim: int, *, vocab_size: int, bias: bool = False, scale: float = 1.0,
        softcap: float | None = None,
    ):
        super().__init__()
        self.scale, self.softcap = scale, softcap
        self.unembed = nn.Linear(dim, vocab_size, bias=bias)

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "Head":
        return cls(cfg.dim, vocab_size=cfg.padded_vocab_size, bias=cfg.head_bias,
                   scale=cfg.logit_scale, softcap=cfg.logit_softcap)

    @log_io("b t d -> b t v")
    def forward(self, x: Tensor) -> Tensor:
        logits = widen(self.unembed(x))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits
