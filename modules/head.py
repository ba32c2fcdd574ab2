"""From the residual stream to logits."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.linear import Linear
from modules.mlps.dense import ACTIVATIONS
from modules.norm import Rescaled, norm_maker, times
from modules.precision import widen
from tools import LoggingModule, log_io


class Transform(LoggingModule):
    """norm(act(dense(x))), before the logits. Devlin et al. 2018 (BERT), arXiv:1810.04805.

    Shape: (..., d) -> (..., d).
    """

    def __init__(self, dim: int, *, activation: str, norm: nn.Module):
        super().__init__()
        self.dense, self.act, self.norm = Linear(dim, dim, bias=False), ACTIVATIONS[activation](), norm

    @log_io("... d -> ... d")
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.dense(x)))


class Head(LoggingModule):
    """The logits: a linear map, a factor, learned ones of each token, and a soft cap c tanh(logits / c).

    `transform`, if there is one, comes before them. `reads` is a constant factor on what the linear map reads.
    The cap as in Gemma 2, arXiv:2408.00118; learned factors as in nGPT, arXiv:2410.01131.
    Shape: (b, t, d) -> (b, t, v), in float32 (of a model in float64, in float64).
    """

    roles = {"unembed.weight": "head"}  # for the optimizer

    def __init__(
        self, dim: int, *, vocab_size: int, bias: bool = False, scale: float = 1.0,
        softcap: float | None = None, token_scale: bool = False, transform: nn.Module | None = None,
        reads: float = 1.0,
    ):
        super().__init__()
        self.reads, self.scale, self.softcap, self.transform = reads, scale, softcap, transform
        self.unembed = Linear(dim, vocab_size, bias=bias)
        self.token_scale = Rescaled(vocab_size, start=1.0, stored=dim**-0.5) if token_scale else None

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "Head":
        transform = None
        if cfg.head_dense != "none":
            transform = Transform(cfg.dim, activation=cfg.head_dense, norm=norm_maker(cfg)(cfg.dim))
        return cls(cfg.dim, vocab_size=cfg.padded_vocab_size, bias=cfg.head_bias, transform=transform,
                   softcap=cfg.logit_softcap,
                   scale=cfg.dim**-0.5 if cfg.logit_scale == "rsqrt_dim" else cfg.logit_scale,
                   token_scale=cfg.token_scale, reads=1 / cfg.width_ratio)

    @log_io("b t d -> b t v")
    def forward(self, x: Tensor) -> Tensor:
        x = x if self.transform is None else self.transform(x)
        logits = self.scaled(widen(self.unembed(times(x, self.reads))))
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def scaled(self, logits: Tensor) -> Tensor:
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.token_scale is None else self.token_scale(logits)
