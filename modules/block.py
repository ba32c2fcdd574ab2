"""A layer: named branches, such as a mixer and an MLP, and how each joins the residual stream: the `residual` flag."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from config import LayerConfig, ModelConfig
from modules.mixers import MIXERS
from modules.mlps import MLPS
from modules.norm import Rescaled, branch_norm_maker, unit
from modules.stream import Carrying, Context, Stream
from tools import LoggingModule, log_io

Caches = Mapping[str, Any]  # the cache of each branch of a block, by its name; None = the branch has none

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
    return _in_context if "context" in signature(part.forward).parameters else _alone


# ---- wirings ----


class Wiring(LoggingModule):
    """f(x), what a branch adds to the stream: the base class of wirings.

    The branch f is a part with `forward(x)` or `forward(x, context, cache)`, or a Carrying part, which also gets the
    stream.
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    norms: tuple[str, ...] = ()  # names of the norms of a wiring

    def __init__(
        self, branch: nn.Module, make_norm: Callable[[], nn.Module], *, dropout: float = 0.0, scale: float = 1.0,
    ):
        super().__init__()
        for name in self.norms:
            setattr(self, name, make_norm())
        self.branch = branch
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scale, self.call = scale, way_to_call(branch)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module) -> "Wiring":
        make_norm = partial(branch_norm_maker(cfg), cfg.dim)
        return cls(branch, make_norm, dropout=cfg.residual_dropout, scale=cfg.residual_scale)

    @classmethod
    def begin(cls, x: Tensor, cfg: ModelConfig) -> Tensor:
        """The stream before the first block, from the embedding (b, t, d)."""
        return x

    @classmethod
    def end(cls, x: Tensor) -> Tensor:
        """What the head reads, (b, t, d), from the stream after a block."""
        return x

    def scale_and_drop(self, y: Tensor) -> Tensor:
        y = self.dropout(y)
        return y if self.scale == 1.0 else y * self.scale

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        return stream.with_x(self.scale_and_drop(y))


class PreNorm(Wiring):
    """x + f(norm(x)): the stream itself is never normalised. Xiong et al. 2020, arXiv:2002.04745."""

    norms = ("norm",)

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, self.norm(stream.x), stream, context, cache)
        return stream.with_x(stream.x + self.scale_and_drop(y))


class PostNorm(PreNorm):
    """norm(x + f(x)): the stream is normalised after every branch. Vaswani et al. 2017."""

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        return stream.with_x(self.norm(stream.x + self.scale_and_drop(y)))


class BranchPostNorm(PreNorm):
    """x + norm(f(x)): only what a branch adds is normalised. OLMo 2, arXiv:2501.00656."""

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        return stream.with_x(stream.x + self.scale_and_drop(self.norm(y)))


class SandwichNorm(PreNorm):
    """x + norm2(f(norm1(x))): a norm on both sides of a branch. Gemma 2, Grok-1, arXiv:2105.13290."""

    norms = ("norm", "post_norm")

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

    def __init__(self, branch: nn.Module, dim: int, *, alpha: float, dropout: float = 0.0, scale: float = 1.0):
        super().__init__(branch, nn.Identity, dropout=dropout, scale=scale)
        self.alpha = Rescaled(dim, start=alpha, stored=dim**-0.5)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module) -> "SphereStep":
        return cls(branch, cfg.dim, alpha=cfg.ngpt.alpha, dropout=cfg.residual_dropout, scale=cfg.residual_scale)

    @log_io("b t d -> b t d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        y, stream = self.call(self.branch, stream.x, stream, context, cache)
        step = self.scale_and_drop(unit(y)) - stream.x
        return stream.with_x(unit(stream.x + self.alpha.value().abs() * step))


# ---- blocks ----


class Block(LoggingModule, nn.ModuleDict):
    """Branches in sequence, each with its wiring. Shape: stream.x (b, t, d) -> (b, t, d).

    `kind` describes how this layer differs from others, for print(model) and traces; "" = all layers are alike.
    """

    def __init__(self, branches: Mapping[str, Wiring], *, kind: str = ""):
        super().__init__(branches)
        self.branches, self.kind = tuple(branches), kind
        if kind:
            self.trace_name = f"{type(self).__name__} {kind.partition(':')[0]}"

    def extra_repr(self) -> str:
        return self.kind

    def make_cache(self, max_len: int) -> Caches:
        parts = {name: self[name].branch for name in self.branches}
        return {name: part.make_cache(max_len) if hasattr(part, "make_cache") else None for name, part in parts.items()}

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, caches: Caches | None = None) -> Stream:
        for name in self.branches:
            stream = self[name](stream, context, caches and caches[name])
        return stream


class ParallelBlock(Block):
    """x + mixer(norm(x)) + mlp(norm(x)), with one norm for all branches, or a norm within each.

    Wang & Komatsuzaki 2021 (GPT-J); Chowdhery et al. 2022, arXiv:2204.02311; two norms: GPT-NeoX, arXiv:2204.06745.
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    def __init__(self, branches: Mapping[str, Wiring], norm: nn.Module, *, kind: str = ""):
        super().__init__({"norm": norm, **branches}, kind=kind)
        self.branches = tuple(branches)

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, caches: Caches | None = None) -> Stream:
        x, normalised = stream.x, self["norm"](stream.x)
        for name in self.branches:
            stream = self[name](stream.with_x(normalised), context, caches and caches[name])
            x = x + stream.x
        return stream.with_x(x)


def make_block(cfg: LayerConfig, *, kind: str = "") -> Block:
    """Build a layer from its flags."""
    chosen = {name: _chosen(name, getattr(cfg, name), menu) for name, menu in BRANCHES.items()}
    parts = {name: part.from_config(cfg) for name, part in chosen.items() if part is not None}
    if cfg.residual in PARALLEL and len(parts) > 1:
        wiring, norm = PARALLEL[cfg.residual]
        branches = {name: wiring.from_config(cfg, part) for name, part in parts.items()}
        return ParallelBlock(branches, norm(cfg), kind=kind)
    wiring = RESIDUALS[cfg.residual]
    return Block({name: wiring.from_config(cfg, part) for name, part in parts.items()}, kind=kind)


def _chosen(flag: str, word: str, menu: Mapping[str, Any]) -> Any:
    """The part of a word. Raises ValueError if it is in config.py and not in its menu."""
    if word not in menu:
        raise ValueError(f"model.{flag}={word} is in config.py, but not in the menu of its parts: add it there too")
    return menu[word]


# the branches of a block, in order: flag -> menu
BRANCHES = {"mixer": MIXERS, "mlp": MLPS}

# of a ParallelBlock: the wiring of each branch, and the norm before all of them
PARALLEL = {"parallel": (Wiring, lambda cfg: branch_norm_maker(cfg)(cfg.dim)),
            "parallel_each": (NoSkip, lambda cfg: nn.Identity())}

# parallel, parallel_each: a layer with one branch is a PreNorm; with several branches it is a ParallelBlock
RESIDUALS = {
    "pre": PreNorm,
    "post": PostNorm,
    "sandwich": SandwichNorm,
    "branch_post": BranchPostNorm,
    "parallel": PreNorm,
    "parallel_each": PreNorm,
    "ngpt": SphereStep,
    "none": NoSkip,
}
