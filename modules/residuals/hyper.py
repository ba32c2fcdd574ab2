"""Several residual streams, between which each branch reads, writes and mixes: hyper-connections."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from config import LayerConfig, ModelConfig
from modules.linear import Linear
from modules.norm import branch_norm_maker, fill, norm_maker
from modules.precision import full_precision, widen
from modules.residuals.wiring import PreNorm, joining
from modules.stream import Context, Stream
from tools import LoggingModule, log_io

SMALL = 0.01  # of the part of the weights that depends on the stream, at first


class ManyStreams(PreNorm):
    """A branch that reads a mixture of n streams and writes to each, while they are mixed: the base class.

    Shape: stream.x (b, t, n, d) -> (b, t, n, d).
    """

    @classmethod
    def begin(cls, x: Tensor, cfg: ModelConfig) -> Tensor:
        return repeat(x, "b t d -> b t n d", n=cfg.hyper.num_streams)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module, number: int = 0) -> "ManyStreams":
        return cls(branch, partial(branch_norm_maker(cfg), cfg.dim), cls.make_weights(cfg, number), **joining(cfg))

    @classmethod
    def make_weights(cls, cfg: LayerConfig, number: int) -> nn.Module:
        """The part that gives the weights (read, write, mix) of the streams, for the branch with this number."""
        raise NotImplementedError

    def __init__(self, branch: nn.Module, make_norm: Callable[[], nn.Module], weights: nn.Module, **options: Any):
        super().__init__(branch, make_norm, **options)
        self.weights = weights

    @log_io("b t n d -> b t n d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        x = stream.x
        read, write, mix = (weights.type_as(x) for weights in self.weights(x))
        mixture = einsum(read, x, "b t n, b t n d -> b t d")
        y, stream = self.call(self.branch, self.norm(mixture), stream, context, cache)
        y = einsum(write, self.scale_and_drop(y), "b t n, b t d -> b t n d")
        return stream.with_x(y + einsum(mix, x, "b t m n, b t m d -> b t n d"))


class TanhWeights(LoggingModule):
    """Fixed weights and a small part that depends on each stream, s tanh(norm(x) w): of reading, writing and mixing.

    At first a branch reads one stream, writes to all alike, and nothing is mixed.
    Shape: (b, t, n, d) -> (b, t, n), (b, t, n), (b, t, n, n), the last by source and target.
    """

    def __init__(self, dim: int, *, num_streams: int, reads: int, norm: nn.Module):
        super().__init__()
        self.reads, self.norm = reads % num_streams, norm
        self.fixed = nn.Parameter(torch.empty(num_streams, num_streams + 2))
        self.scale = nn.Parameter(torch.empty(2))  # of reading and mixing, and of writing
        self.follow = Linear(dim, num_streams + 2, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, SMALL)
        fill(self.fixed, 0.0)
        with torch.no_grad():
            self.fixed[self.reads, 0] = 1.0
            self.fixed[:, 1] = 1.0
            self.fixed[:, 2:].fill_diagonal_(1.0)

    @log_io("b t n d -> b t n, b t n, b t n n")
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        follow = widen(self.follow(self.norm(x))).tanh()
        read, write, mix = follow.split((1, 1, x.shape[2]), dim=-1)
        fixed = widen(self.fixed)
        own, written = widen(self.scale)
        return ((own * read).squeeze(-1) + fixed[:, 0], (written * write).squeeze(-1) + fixed[:, 1],
                own * mix + fixed[:, 2:])


class SumOfStreams(LoggingModule):
    """Shape: stream.x (b, t, n, d) -> (b, t, d)."""

    @log_io("b t n d -> b t d")
    def forward(self, stream: Stream) -> Tensor:
        return stream.x.sum(2)


class HyperConnections(ManyStreams):
    """Dynamic hyper-connections. Zhu et al. 2024, arXiv:2409.19606, equations 10 to 13.

    It begins as PreNorm: all streams are the same.
    Shape: stream.x (b, t, n, d) -> (b, t, n, d).
    """

    @classmethod
    def make_weights(cls, cfg: LayerConfig, number: int) -> nn.Module:
        return TanhWeights(cfg.dim, num_streams=cfg.hyper.num_streams, reads=number, norm=norm_maker(cfg)(cfg.dim))

    @classmethod
    def make_exit(cls, cfg: ModelConfig) -> nn.Module:
        return SumOfStreams()


class FromAllStreams(LoggingModule):
    """scale * (w RMS(all streams)) + bias, in float32, in groups of numbers with a scale each.

    Shape: (b, t, n, d) -> (b, t, sum of the sizes).
    """

    def __init__(self, dim: int, sizes: tuple[int, ...], *, num_streams: int, eps: float):
        super().__init__()
        self.sizes, self.eps = sizes, eps
        self.follow = Linear(num_streams * dim, sum(sizes), bias=False)
        self.scale, self.bias = nn.Parameter(torch.empty(len(sizes))), nn.Parameter(torch.empty(sum(sizes)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, SMALL)
        fill(self.bias, 0.0)

    @log_io("b t n d -> b t _")
    def forward(self, x: Tensor) -> Tensor:
        x = widen(rearrange(x, "b t n d -> b t (n d)"))
        with full_precision(x.device.type):
            normalised = nn.functional.rms_norm(x, x.shape[-1:], eps=self.eps)
            y = nn.functional.linear(normalised, self.follow.weight.type_as(x))
        scale = torch.cat([part.expand(size) for part, size in zip(self.scale, self.sizes, strict=True)])
        return y * scale.type_as(y) + self.bias.type_as(y)


class ManifoldWeights(LoggingModule):
    """Weights that keep the size of the streams: the mixing ones are doubly stochastic, by Sinkhorn's algorithm.

    Shape: (b, t, n, d) -> (b, t, n), (b, t, n), (b, t, n, n), the last by source and target.
    """

    def __init__(self, dim: int, *, num_streams: int, sinkhorn_steps: int, eps: float, norm_eps: float):
        super().__init__()
        self.sinkhorn_steps, self.eps = sinkhorn_steps, eps
        n = num_streams
        self.logits = FromAllStreams(dim, (n, n, n * n), num_streams=n, eps=norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        n = self.logits.sizes[0]
        with torch.no_grad():  # near the identity, so that streams stay apart
            self.logits.bias[2 * n:].view(n, n).fill_diagonal_(4.0)

    def extra_repr(self) -> str:
        return f"sinkhorn_steps={self.sinkhorn_steps}"

    @log_io("b t n d -> b t n, b t n, b t n n")
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read, write, mix = self.logits(x).split(self.logits.sizes, dim=-1)
        return read.sigmoid() + self.eps, 2 * write.sigmoid(), self.doubly_stochastic(mix)

    def doubly_stochastic(self, logits: Tensor) -> Tensor:
        """A matrix whose rows and columns sum to 1. Shape: (b, t, n n) -> (b, t, n, n)."""
        n = self.logits.sizes[0]
        mix = rearrange(logits, "b t (m n) -> m n b t", n=n).softmax(1) + self.eps  # sums over the last axes are slow
        for step in range(self.sinkhorn_steps):
            mix = mix / (mix.sum(1, keepdim=True) + self.eps) if step else mix
            mix = mix / (mix.sum(0, keepdim=True) + self.eps)
        return rearrange(mix, "m n b t -> b t m n").contiguous()  # as products of matrices want it


class WeightedStreams(LoggingModule):
    """The sum of the streams, each with a weight that follows from all. Shape: stream.x (b, t, n, d) -> (b, t, d)."""

    def __init__(self, dim: int, *, num_streams: int, eps: float, norm_eps: float):
        super().__init__()
        self.eps, self.logits = eps, FromAllStreams(dim, (num_streams,), num_streams=num_streams, eps=norm_eps)

    @log_io("b t n d -> b t d")
    def forward(self, stream: Stream) -> Tensor:
        read = self.logits(stream.x).sigmoid() + self.eps
        return einsum(read.type_as(stream.x), stream.x, "b t n, b t n d -> b t d")


class ManifoldHyperConnections(ManyStreams):
    """Manifold-constrained hyper-connections (mHC). Xie et al. 2025, arXiv:2512.24880, as in DeepSeek-V4.

    Shape: stream.x (b, t, n, d) -> (b, t, n, d).
    """

    @classmethod
    def make_weights(cls, cfg: LayerConfig, number: int) -> nn.Module:
        return ManifoldWeights(cfg.dim, num_streams=cfg.hyper.num_streams, sinkhorn_steps=cfg.hyper.sinkhorn_steps,
                               eps=cfg.hyper.eps, norm_eps=cfg.norm_eps)

    @classmethod
    def make_exit(cls, cfg: ModelConfig) -> nn.Module:
        return WeightedStreams(cfg.dim, num_streams=cfg.hyper.num_streams, eps=cfg.hyper.eps, norm_eps=cfg.norm_eps)
