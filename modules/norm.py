"""Normalisation of the residual stream: the `norm` flag."""

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig, ModelConfig
from modules.kernels import rms_norm
from modules.precision import Float32Buffers, constants, widen
from tools import LoggingModule, log_io

MakeNorm = Callable[[int], nn.Module]  # from a width


class RMSNorm(LoggingModule):
    """Divide each vector by its root mean square, then scale each channel.

    Zhang & Sennrich 2019, arXiv:1910.07467. With `unit_offset` the scale is 1 + w and w starts at
    zero, as in Gemma.
    Shape: (..., d) -> (..., d). Statistics in float32; the result has the dtype of x.
    """

    def __init__(
        self, dim: int, *, eps: float = 1e-6, affine: bool = True, bias: bool = False,
        unit_offset: bool = False,
    ):
        super().__init__()
        self.eps, self.offset = eps, float(affine and unit_offset)
        self.scale = nn.Parameter(torch.empty(dim)) if affine else None
        self.bias = nn.Parameter(torch.empty(dim)) if affine and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, 1 - self.offset)
        fill(self.bias, 0.0)

    def scale_in(self, dtype: torch.dtype) -> Tensor | None:
        """The factor of each channel, in the dtype of the statistics. Shape: (d,)."""
        scale = None if self.scale is None else self.scale.to(dtype)
        return scale + self.offset if self.offset else scale

    def normalise(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return rms_norm(x, scale, self.eps)  # squares in bfloat16 would lose small channels

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale_in(torch.promote_types(x.dtype, torch.float32))
        if self.bias is None:
            return self.normalise(x, scale)
        return (self.normalise(widen(x), scale) + self.bias).type_as(x)


class LayerNorm(RMSNorm):
    """Subtract each vector's mean and divide by its standard deviation; then scale and shift.

    Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    Shape: (..., d) -> (..., d). Statistics in float32; the result has the dtype of x.
    """

    def normalise(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return nn.functional.layer_norm(widen(x), x.shape[-1:], scale, eps=self.eps).type_as(x)


class CosineNorm(Float32Buffers):
    """Scale each vector to the length `scale`, one number for all channels that starts at sqrt(dim).

    Nguyen & Salazar 2019, arXiv:1910.05895 (ScaleNorm).
    Shape: (..., d) -> (..., d). Statistics in float32; the result has the dtype of x.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6, affine: bool = True):
        super().__init__()
        self.eps, self.length = eps, dim**0.5
        self.scale = nn.Parameter(torch.empty(1)) if affine else constants(1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, self.length)

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.normalize(widen(x), dim=-1, eps=self.eps) * self.scale).type_as(x)


class L2Norm(LoggingModule):
    """Scale each vector to length 1, then scale each channel.

    Shape: (..., d) -> (..., d). Statistics in float32; the result has the dtype of x.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6, affine: bool = True):
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.empty(dim)) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.scale, 1.0)

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.normalize(widen(x), dim=-1, eps=self.eps)
        return (y if self.scale is None else y * self.scale).type_as(x)


class Rescaled(LoggingModule):
    """A learned vector that starts at `start` and is stored as `stored`, so that a step moves it less or more.

    Loshchilov et al. 2024, arXiv:2410.01131 (nGPT), section 2.5. Shape: x (..., *sizes) -> (..., *sizes).
    """

    def __init__(self, *sizes: int, start: float, stored: float):
        super().__init__()
        self.stored, self.factor = stored, start / stored
        self.vector = nn.Parameter(torch.empty(sizes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.vector, self.stored)

    def fan_in(self) -> dict[str, float]:
        """As if so many numbers added up: a step moves the value as many times as far, in units of its start."""
        return {"vector": 1 / self.stored}

    def value(self) -> Tensor:
        return self.vector * self.factor

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        return (x * self.value()).type_as(x)


def unit(x: Tensor) -> Tensor:
    """Each vector, at length 1. Shape: (..., d) -> (..., d)."""
    return nn.functional.normalize(widen(x), dim=-1).type_as(x)


class DyT(LoggingModule):
    """Dynamic tanh: tanh(alpha x) in place of normalising.

    Zhu et al. 2025, arXiv:2503.10622; alpha is one learned number that starts at 0.5.
    Shape: (..., d) -> (..., d).
    """

    def __init__(self, dim: int, *, affine: bool = True, bias: bool = False):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1))
        self.scale = nn.Parameter(torch.empty(dim)) if affine else None
        self.bias = nn.Parameter(torch.empty(dim)) if affine and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.alpha, 0.5)
        fill(self.scale, 1.0)
        fill(self.bias, 0.0)

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha * widen(x))
        if self.scale is not None:
            y = y * self.scale
        if self.bias is not None:
            y = y + self.bias
        return y.type_as(x)


class DepthScaled(LoggingModule):
    """A norm whose output is divided by sqrt(l) in layer l, from 1: the variance of the stream then grows less.

    Sun et al. 2025, arXiv:2502.05795 (LayerNorm scaling). Shape: (..., d) -> (..., d).
    """

    def __init__(self, norm: nn.Module, *, layer: int):
        super().__init__()
        self.norm, self.factor = norm, layer**-0.5

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.factor


class NoNorm(LoggingModule):
    """The identity. Shape: (..., d) -> (..., d)."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


def times(x: Tensor, factor: float) -> Tensor:
    """x times a constant; 1 takes no time. Shape: any."""
    return x if factor == 1.0 else x * factor


def fill(tensor: Tensor | None, value: float) -> None:
    """Fill a parameter or buffer with a value, if there is one."""
    if tensor is not None:
        nn.init.constant_(tensor, value)


NORMS = {"rms": RMSNorm, "layer": LayerNorm, "cosine": CosineNorm, "l2": L2Norm, "dyt": DyT, "none": NoNorm}


@cache
def arguments_of(function: Callable) -> frozenset[str]:
    """The names of the arguments that a function or class takes."""
    return frozenset(signature(function).parameters)


def norm_maker(cfg: ModelConfig) -> MakeNorm:
    """The norm that the flags describe, as a function of its width.

    A class gets those of eps, affine, bias and unit_offset that its __init__ takes. Raises ValueError if a flag sets
    one that it does not take.
    """
    flags = {"eps": cfg.norm_eps, "affine": cfg.norm_affine, "bias": cfg.norm_bias,
             "unit_offset": cfg.norm_unit_offset}
    takes = arguments_of(NORMS[cfg.norm])
    for name in ("bias", "unit_offset"):
        if flags[name] and name not in takes:
            raise ValueError(f"norm_{name}=True would change nothing: norm={cfg.norm} has none; leave it off")
    return chosen_norm(cfg.norm, flags)


def branch_norm_maker(cfg: LayerConfig) -> MakeNorm:
    """The norm before a branch of a layer, as a function of its width."""
    make = norm_maker(cfg)
    return (lambda dim: DepthScaled(make(dim), layer=cfg.index + 1)) if cfg.depth_scaled_norms else make


def chosen_norm(kind: str, flags: dict[str, Any]) -> MakeNorm:
    """A norm with those flags that its class takes."""
    takes = arguments_of(NORMS[kind])
    return partial(NORMS[kind], **{name: value for name, value in flags.items() if name in takes})
