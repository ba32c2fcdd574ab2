"""Normalisation of queries and keys: the `qk_norm` flag."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.norm import L2Norm, MakeNorm, Rescaled, chosen_norm, fill, unit
from modules.precision import widen
from tools import LoggingModule, log_io


class EachHeadNorm(LoggingModule):
    """Normalise each head, then scale and shift it by numbers of its own. Command R, StableLM 2.

    Shape: x (b, h, t, p) -> (b, h, t, p). Statistics in float32; the result has the dtype of x.
    """

    def __init__(self, head_dim: int, *, num_heads: int, make_norm: MakeNorm, affine: bool, bias: bool, offset: bool):
        super().__init__()
        self.norm, self.offset = make_norm(head_dim), float(offset)
        self.scale = nn.Parameter(torch.empty(num_heads, head_dim)) if affine else None
        self.bias = nn.Parameter(torch.empty(num_heads, head_dim)) if affine and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, 1 - self.offset)
        fill(self.bias, 0.0)

    @log_io("b h t p -> b h t p")
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(widen(x))
        if self.scale is not None:
            y = y * (self.scale + self.offset).unsqueeze(1)  # (h, 1, p)
        if self.bias is not None:
            y = y + self.bias.unsqueeze(1)
        return y.type_as(x)


class UnitQueries(LoggingModule):
    """Scale each query to length 1, then each channel by s^2: as if queries and keys of length 1 were both scaled by s.

    Loshchilov et al. 2024, arXiv:2410.01131 (nGPT), equations 15 and 16; s is learned for each channel of each head.
    Shape: q (b, h, t, p) -> (b, h, t, p).
    """

    def __init__(self, head_dim: int, *, num_heads: int, stored: float):
        super().__init__()
        self.scale = Rescaled(num_heads, 1, head_dim, start=1.0, stored=stored)

    @log_io("b h t p -> b h t p")
    def forward(self, q: Tensor) -> Tensor:
        return (unit(widen(q)) * self.scale.value().square()).type_as(q)


def qk_norm_maker(cfg: LayerConfig) -> Callable[..., tuple[nn.Module, nn.Module]]:
    """The norms of queries or keys of a layer by the flags, as a function of the number of heads and their width.

    The first acts on all heads together, the second on each; one of them, or both, do nothing.
    """
    own, kind = cfg.attention, cfg.attention.qk_norm_kind or cfg.norm
    affine = cfg.norm_affine if own.qk_norm_affine is None else own.qk_norm_affine
    bias = cfg.norm_bias if own.qk_norm_bias is None else own.qk_norm_bias
    flags = {"eps": cfg.norm_eps, "affine": affine, "bias": bias, "unit_offset": cfg.norm_unit_offset}

    def make(num_heads: int, head_dim: int, *, of_keys: bool = False) -> tuple[nn.Module, nn.Module]:
        if cfg.qk_norm == "unit":
            return nn.Identity(), (L2Norm(head_dim, affine=False) if of_keys else
                                   UnitQueries(head_dim, num_heads=num_heads, stored=cfg.dim**-0.5))
        if cfg.qk_norm == "full":
            return chosen_norm(kind, flags)(num_heads * head_dim), nn.Identity()
        if cfg.qk_norm == "head":
            return nn.Identity(), chosen_norm(kind, flags)(head_dim)
        if cfg.qk_norm == "each_head":
            plain = chosen_norm(kind, {"eps": cfg.norm_eps, "affine": False})
            return nn.Identity(), EachHeadNorm(head_dim, num_heads=num_heads, make_norm=plain, affine=affine,
                                               bias=bias, offset=cfg.norm_unit_offset)
        return nn.Identity(), nn.Identity()

    return make
