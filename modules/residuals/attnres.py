"""Attention over depth: each branch reads a mixture of what earlier ones gave, not their sum."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig, ModelConfig
from modules.norm import branch_norm_maker
from modules.precision import full_precision, widen
from modules.residuals.wiring import PreNorm, joining
from modules.stream import Context, Stream
from tools import LoggingModule, log_io


class DepthMixture(LoggingModule):
    """sum over l of p_l v_l, p = softmax over l of q . RMS(v_l), with a learned query q for all positions, 0 at first.

    Chen et al. 2026, arXiv:2603.15031. In float32. Shape: sources (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, eps: float):
        super().__init__()
        self.eps, self.query, self.scale = eps, nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def fan_in(self) -> dict[str, int]:
        return {"query": len(self.query)}

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.query)
        nn.init.ones_(self.scale)

    @log_io("b t d -> b t d")
    def forward(self, last: Tensor, *earlier: Tensor) -> Tensor:
        sources = [widen(x) for x in (*earlier, last)]
        query = (widen(self.query) * widen(self.scale)).type_as(sources[0])
        with full_precision(last.device.type):
            scores = [nn.functional.rms_norm(x, x.shape[-1:], eps=self.eps) @ query for x in sources]
        shares = torch.stack(scores, dim=-1).softmax(-1).unsqueeze(-1).unbind(-2)  # each (b, t, 1)
        return sum(share * x for share, x in zip(shares, sources, strict=True)).type_as(last)


def sources_of(stream: Stream) -> list[Tensor]:
    """The embedding and the sums of blocks that are complete, in order."""
    return [stream.carried[name] for name in sorted(stream.carried) if name.startswith(SOURCE)]


SOURCE = "source "


class AttentionResidual(PreNorm):
    """f(norm(mixture)), of the embedding, of the sums of what blocks of branches gave, and of the sum so far.

    A block has `block_len` branches; with one, each branch attends over all earlier ones. stream.x is the sum of the
    block that is not complete.
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, branch: nn.Module, make_norm: Callable[[], nn.Module], mixture: nn.Module, *, opens: int | None,
        **options: Any,
    ):
        super().__init__(branch, make_norm, **options)
        self.mixture, self.opens = mixture, opens  # the number of the block that this branch opens

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module, number: int) -> "AttentionResidual":
        opens = None if number % cfg.attnres.block_len else number // cfg.attnres.block_len
        mixture = DepthMixture(cfg.dim, eps=cfg.norm_eps) if number else nn.Identity()  # the embedding is all there is
        return cls(branch, partial(branch_norm_maker(cfg), cfg.dim), mixture, opens=opens, **joining(cfg))

    @classmethod
    def make_exit(cls, cfg: ModelConfig) -> nn.Module:
        return MixtureExit(DepthMixture(cfg.dim, eps=cfg.norm_eps))

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        x = self.norm(self.mixture(stream.x, *sources_of(stream)))
        so_far, given = stream.x, stream
        if self.opens is not None:
            so_far, given = None, stream.carry(**{f"{SOURCE}{self.opens:04}": stream.x})
        y, given = self.call(self.branch, x, given, context, cache)
        y = self.scale_and_drop(y)
        return given.with_x(y if so_far is None else so_far + y)


class MixtureExit(LoggingModule):
    """What the head reads: a mixture of all sources. Shape: stream.x (b, t, d) -> (b, t, d)."""

    def __init__(self, mixture: DepthMixture):
        super().__init__()
        self.mixture = mixture

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream) -> Tensor:
        return self.mixture(stream.x, *sources_of(stream))
