"""How a branch joins the residual stream: wirings with one stream, and what scales and drops a branch on its way."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig, ModelConfig
from modules.norm import Rescaled, arguments_of, branch_norm_maker, unit
from modules.stream import Carrying, Context, Stream
from tools import LoggingModule, log_io

# ---- how a branch is called, by the arguments that it takes: see Wiring ----


def _alone(part: nn.Module, x: Tensor, stream: Stream, context: Context, cache: Any) -> tuple[Tensor, Stream]:
    return part(x), stream


def _in_context(part: nn.Module, x: Tensor, stream: Stream, context: Context, cache: Any) -> tuple[Tensor, Stream]:
    return part(x, context, cache), stream


def _carrying(part: nn.Module, x: Tensor, stream: Stream, context: Context, cache: Any) -> tuple[Tensor, Stream]:
    return part(x, context, cache, stream)


def way_to_call(part: nn.Module) -> Callable:
    """How to call a part: with x alone, also with context and cache, or also with the stream (Carrying)."""
    if isinstance(part, Carrying):
        return _carrying
    return _in_context if "context" in arguments_of(type(part).forward) else _alone


# ---- how what a branch adds is scaled and dropped ----


class ChannelScale(LoggingModule):
    """A learned factor on each channel (LayerScale). Touvron et al. 2021, arXiv:2103.17239.

    Shape: (..., d) -> (..., d).
    """

    def __init__(self, dim: int, *, start: float):
        super().__init__()
        self.start, self.factor = start, nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.factor, self.start)

    @log_io("... d -> ... d")
    def forward(self, y: Tensor) -> Tensor:
        return y * self.factor.type_as(y)


class StochasticDepth(LoggingModule):
    """In training, zero for a row with this probability; the others are scaled up. Huang et al. 2016, arXiv:1603.09382.

    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def extra_repr(self) -> str:
        return f"p={self.probability:.3g}"

    @log_io("b t d -> b t d")
    def forward(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        kept = torch.rand(len(y), 1, 1, device=y.device) >= self.probability
        return y * kept / (1 - self.probability)


def joining(cfg: LayerConfig) -> dict[str, Any]:
    """What the flags of a layer say of how each of its branches joins the stream."""
    channels = None if cfg.layer_scale is None else ChannelScale(cfg.dim, start=cfg.layer_scale)
    return {"dropout": cfg.residual_dropout, "scale": cfg.residual_scale / cfg.model.depth_ratio, "channels": channels,
            "drop_branch": cfg.drop_branch * (cfg.index + 1) / cfg.model.num_layers}


# ---- wirings ----


class Wiring(LoggingModule):
    """f(x), what a branch adds to the stream: the base class of wirings.

    The branch f is a part with `forward(x)` or `forward(x, context, cache)`, or a Carrying part, which also gets the
    stream.
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    norms: tuple[str, ...] = ()  # names of the norms of a wiring
    norm_before = False  # whether its only norm is before the branch: one with `own_norm` needs none

    def __init__(
        self, branch: nn.Module, make_norm: Callable[[], nn.Module], *, dropout: float = 0.0, scale: float = 1.0,
        channels: nn.Module | None = None, drop_branch: float = 0.0,
    ):
        super().__init__()
        self.channels = nn.Identity() if channels is None else channels
        for name in self.norms:
            setattr(self, name, make_norm())
        self.branch = branch
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drop_branch = StochasticDepth(drop_branch) if drop_branch else nn.Identity()
        self.scale, self.call = scale, way_to_call(branch)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module, number: int = 0) -> "Wiring":
        skipped = cfg.model.skip_first_norm and number == 0 or cls.norm_before and getattr(branch, "own_norm", False)
        return cls(branch, nn.Identity if skipped else partial(branch_norm_maker(cfg), cfg.dim), **joining(cfg))

    @classmethod
    def begin(cls, x: Tensor, cfg: ModelConfig) -> Tensor:
        """The stream before the first block, from the embedding (b, t, d)."""
        return x

    @classmethod
    def make_exit(cls, cfg: ModelConfig) -> nn.Module | None:
        """A part that takes what the head reads, (b, t, d), from the stream after a block; None = it reads x."""
        return None

    def scale_and_drop(self, y: Tensor) -> Tensor:
        y = self.drop_branch(self.dropout(self.channels(y)))
        return y if self.scale == 1.0 else y * self.scale

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        return stream.with_x(self.scale_and_drop(y))


class PreNorm(Wiring):
    """x + f(norm(x)): the stream itself is never normalised. Xiong et al. 2020, arXiv:2002.04745."""

    norms, norm_before = ("norm",), True

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, self.norm(stream.x), stream, context, cache)
        return stream.with_x(stream.x + self.scale_and_drop(y))


class PostNorm(PreNorm):
    """norm(a x + f(x)): the stream is normalised after every branch. Vaswani et al. 2017.

    `skip_scale` is a; above 1 as in DeepNorm, Wang et al. 2022, arXiv:2203.00555.
    """

    def __init__(self, *args: Any, skip_scale: float = 1.0, **options: Any):
        super().__init__(*args, **options)
        self.skip_scale = skip_scale

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module, number: int = 0) -> "PostNorm":
        return cls(branch, partial(branch_norm_maker(cfg), cfg.dim), skip_scale=cfg.skip_scale, **joining(cfg))

    norm_before = False

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        x = stream.x if self.skip_scale == 1.0 else stream.x * self.skip_scale
        return stream.with_x(self.norm(x + self.scale_and_drop(y)))


class BranchPostNorm(PreNorm):
    """x + norm(f(x)): only what a branch adds is normalised. OLMo 2, arXiv:2501.00656."""

    norm_before = False

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        return stream.with_x(stream.x + self.scale_and_drop(self.norm(y)))


class SandwichNorm(PreNorm):
    """x + norm2(f(norm1(x))): a norm on both sides of a branch. Gemma 2, Grok-1, arXiv:2105.13290."""

    norms, norm_before = ("norm", "post_norm"), False

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, self.norm(stream.x), stream, context, cache)
        return stream.with_x(stream.x + self.scale_and_drop(self.post_norm(y)))


class NoSkip(PreNorm):
    """f(norm(x)): no skip connection."""

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, self.norm(stream.x), stream, context, cache)
        return stream.with_x(self.scale_and_drop(y))


class SphereStep(Wiring):
    """unit(x + alpha (unit(f(x)) - x)): the stream has length 1 and moves towards what a branch gives, alpha learned.

    Loshchilov et al. 2024, arXiv:2410.01131 (nGPT), equations 10 and 11.
    """

    def __init__(self, branch: nn.Module, dim: int, *, alpha: float, **options: Any):
        super().__init__(branch, nn.Identity, **options)
        self.alpha = Rescaled(dim, start=alpha, stored=dim**-0.5)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module, number: int = 0) -> "SphereStep":
        return cls(branch, cfg.dim, alpha=cfg.ngpt.alpha, **joining(cfg))

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        step = self.scale_and_drop(unit(y)) - stream.x
        return stream.with_x(unit(stream.x + self.alpha.value().abs() * step))
