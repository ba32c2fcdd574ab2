"""A layer: a mixer and an MLP, and how each joins the residual stream: the `residual` flag."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from modules.mixers import MIXERS
from modules.mlp import MLPS
from modules.norm import norm_maker
from tools import LoggingModule, log_io

MakeNorm = Callable[[], nn.Module]


class Wiring(LoggingModule):
    """f(x), a branch (mixer or MLP) as it goes into the stream: the base of all wirings.

    Shape: x (b, t, d) -> (b, t, d). `context` goes to the branch as it is.
    """

    norms: tuple[str, ...] = ()  # the names of the norms that a wiring has

    def __init__(self, branch: nn.Module, make_norm: MakeNorm, *, dropout: float, scale: float):
        super().__init__()
        for name in self.norms:
            setattr(self, name, make_norm())
        self.branch = branch
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scale = scale

    def weigh(self, y: Tensor) -> Tensor:
        y = self.dropout(y)
        return y if self.scale == 1.0 else y * self.scale

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return self.weigh(self.branch(x, **context))


class PreNorm(Wiring):
    """x + f(norm(x)): the stream itself is never normalised. Xiong et al. 2020, arXiv:2002.04745."""

    norms = ("norm",)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return x + self.weigh(self.branch(self.norm(x), **context))


class PostNorm(PreNorm):
    """norm(x + f(x)): the stream is normalised after every branch. Vaswani et al. 2017."""

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return self.norm(x + self.weigh(self.branch(x, **context)))


class BranchPostNorm(PreNorm):
    """x + norm(f(x)): only what a branch adds is normalised. OLMo 2, arXiv:2501.00656."""

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return x + self.weigh(self.norm(self.branch(x, **context)))


class SandwichNorm(PreNorm):
    """x + norm2(f(norm1(x))): a norm on both sides of a branch. Gemma 2, Grok-1, arXiv:2105.13290."""

    norms = ("norm", "post_norm")

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return x + self.weigh(self.post_norm(self.branch(self.norm(x), **context)))


class NoSkip(PreNorm):
    """f(norm(x)): no way around the branch; what residual connections were invented against."""

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return self.weigh(self.branch(self.norm(x), **context))


class NoBranch(LoggingModule):
    """The stream as it is, where a layer has no mixer or no MLP. Shape: (b, t, d) -> (b, t, d)."""

    def forward(self, x: Tensor, **context) -> Tensor:
        return x


class Block(LoggingModule):
    """The mixer, then the MLP. Shape: x (b, t, d) -> (b, t, d)."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module):
        super().__init__()
        self.mixer, self.mlp = mixer, mlp

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        return self.mlp(self.mixer(x, **context))


class ParallelBlock(LoggingModule):
    """x + mixer(norm(x)) + mlp(norm(x)), both from one norm.

    Wang & Komatsuzaki 2021 (GPT-J); Chowdhery et al. 2022, arXiv:2204.02311.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, mixer: nn.Module, mlp: nn.Module, make_norm: MakeNorm):
        super().__init__()
        self.norm, self.mixer, self.mlp = make_norm(), mixer, mlp

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, **context) -> Tensor:
        y = self.norm(x)
        return x + self.mixer(y, **context) + self.mlp(y)


def make_block(cfg, layer: int) -> nn.Module:
    """Layer number `layer` (from 0) as the flags describe it."""
    mixer, mlp = MIXERS[cfg.mixer_at(layer)], MLPS[cfg.mlp]
    mixer = mixer and mixer.from_config(cfg, layer)
    mlp = mlp and mlp.from_config(cfg)
    make_norm = partial(norm_maker(cfg), cfg.dim)
    options = {"dropout": cfg.residual_dropout, "scale": cfg.residual_scale}
    if cfg.residual == "parallel" and mixer and mlp:
        return ParallelBlock(*(Wiring(part, make_norm, **options) for part in (mixer, mlp)), make_norm)
    wiring = RESIDUALS[cfg.residual]
    return Block(*(wiring(part, make_norm, **options) if part else NoBranch() for part in (mixer, mlp)))


# a layer with one branch has nothing beside it to be parallel to: it is a PreNorm
RESIDUALS = {
    "pre": PreNorm,
    "post": PostNorm,
    "sandwich": SandwichNorm,
    "branch_post": BranchPostNorm,
    "parallel": PreNorm,
    "none": NoSkip,
}
