"""The part that acts on each position separately: the `mlp` and `activation` flags."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.norm import Rescaled, norm_maker, times
from modules.precision import narrow
from tools import LoggingModule, log_io


class ReLU2(nn.Module):
    """relu(x)^2. So et al. 2021, arXiv:2109.08668. Shape: any."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x). Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2. Shape: any."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class XIELU(LoggingModule):
    """A parabola with a slope for x > 0, and an exponential with a slope below: both with a learned curvature.

    Huang & Schlag 2024, arXiv:2411.13010: alpha_p x^2 + beta x, and alpha_n (e^x - 1 - x) + beta x; beta is 1/2.
    Shape: any.
    """

    BETA, START = 0.5, 0.8  # START: of both curvatures

    def __init__(self):
        super().__init__()
        self.alpha_p, self.alpha_n = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.alpha_p, math.log(math.expm1(self.START)))  # through a softplus, so they stay positive
        nn.init.constant_(self.alpha_n, math.log(math.expm1(self.START - self.BETA)))

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        above = nn.functional.softplus(self.alpha_p).type_as(x) * x * x
        curvature = self.BETA + nn.functional.softplus(self.alpha_n).type_as(x)
        below = (torch.expm1(x.clamp(max=-1e-6)) - x) * curvature
        return torch.where(x > 0, above, below) + self.BETA * x


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu2": ReLU2,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "xielu": XIELU,
    "none": nn.Identity,
}


class MLP(LoggingModule):
    """out(act(up(x))): two matrices with a nonlinearity between them. Vaswani et al. 2017.

    `linear` makes the maps: those of a mixture of experts have a matrix for each expert, and `groups` says which rows
    are whose; nn.Linear takes none. `scales` are constant factors on what `act` reads and on what the MLP gives
    (Falcon-H1, arXiv:2507.22448).
    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    maps: tuple[str, ...] = ("up",)  # from the stream

    def __init__(
        self, dim: int, *, hidden_dim: int, activation: str = "gelu", bias: bool = False,
        dropout: float = 0.0, inner_norm: nn.Module | None = None, linear: Callable[..., nn.Module] = Linear,
        scales: tuple[float, ...] = (1.0, 1.0),
    ):
        super().__init__()
        self.scales = scales
        self.up = linear(dim, hidden_dim, bias=bias)
        self.act = ACTIVATIONS[activation]()
        self.inner_norm = nn.Identity() if inner_norm is None else inner_norm
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.out = linear(hidden_dim, dim, bias=bias)

    def extra_repr(self) -> str:
        return "" if self.scales == (1.0, 1.0) else "scales=({:.3g}, {:.3g})".format(*self.scales)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MLP":
        return cls(cfg.dim, **cls.options_of(cfg))

    @classmethod
    def options_of(cls, cfg: LayerConfig) -> dict[str, Any]:
        """What the flags of a layer say of it: its arguments besides the width."""
        return {"hidden_dim": cfg.hidden_width, "activation": cfg.activation, "bias": cfg.mlp_bias,
                "dropout": cfg.mlp_dropout, "scales": cfg.mlp_scales,
                "inner_norm": norm_maker(cfg)(cfg.hidden_width) if cfg.inner_norm else None}

    def read(self, x: Tensor, *groups: Tensor) -> tuple[Tensor, ...]:
        """What the maps give, for `combine`. Shape: (..., d) -> (..., f), once for each of `maps`."""
        x = narrow(x)
        return tuple(getattr(self, name)(x, *groups) for name in self.maps)

    def combine(self, up: Tensor) -> Tensor:
        """The hidden units. Shape: (..., f) -> (..., f)."""
        return self.activate(up)

    def activate(self, x: Tensor) -> Tensor:
        return self.act(times(x, self.scales[0]))

    @log_io("... d -> ... f")
    def hidden(self, x: Tensor, *groups: Tensor) -> Tensor:
        return self.combine(*self.read(x, *groups))

    @log_io("... d -> ... d")
    def forward(self, x: Tensor, *groups: Tensor) -> Tensor:
        return self.leave(self.hidden(x, *groups), *groups)

    def leave(self, hidden: Tensor, *groups: Tensor) -> Tensor:
        """From the hidden units to the stream. Shape: (..., f) -> (..., d)."""
        return times(self.out(self.dropout(self.inner_norm(hidden)), *groups), self.scales[1])


class GLU(MLP):
    """out(act(gate(x)) * up(x)): a gate for each hidden unit; silu makes it SwiGLU, gelu GeGLU.

    Shazeer 2020, arXiv:2002.05202.
    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    maps = ("gate", "up")

    def __init__(
        self, dim: int, *, hidden_dim: int, activation: str = "silu", bias: bool = False,
        linear: Callable[..., nn.Module] = Linear, **options: Any,
    ):
        super().__init__(dim, hidden_dim=hidden_dim, activation=activation, bias=bias, linear=linear, **options)
        self.gate = linear(dim, hidden_dim, bias=bias)

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activate(gate) * up


class ClampedGLU(GLU):
    """out(act(min(gate(x), limit)) * (clamp(up(x)) + offset)), with clamp to -limit ... limit.

    Agarwal et al. 2025 (gpt-oss), arXiv:2508.10925.
    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    def __init__(self, dim: int, *, limit: float = 7.0, offset: float = 1.0, **options: Any):
        super().__init__(dim, **options)
        self.limit, self.offset = limit, offset

    @classmethod
    def options_of(cls, cfg: LayerConfig) -> dict[str, Any]:
        return super().options_of(cfg) | {"limit": cfg.clamped_glu.limit, "offset": cfg.clamped_glu.offset}

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activate(gate.clamp(max=self.limit)) * (up.clamp(-self.limit, self.limit) + self.offset)


class ScaledGLU(GLU):
    """out(act(gate(x) s_v sqrt(d)) * up(x) s_u), with a learned s of each hidden unit, for inputs of length 1.

    `root` stands in place of sqrt(d), which grows with the width.

    Loshchilov et al. 2024, arXiv:2410.01131 (nGPT), equations 20 and 21.
    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    def __init__(self, dim: int, *, hidden_dim: int, root: float | None = None, **options: Any):
        super().__init__(dim, hidden_dim=hidden_dim, **options)
        self.up_scale = Rescaled(hidden_dim, start=1.0, stored=dim**-0.5)
        self.gate_scale = Rescaled(hidden_dim, start=root or dim**0.5, stored=dim**-0.5)

    @classmethod
    def options_of(cls, cfg: LayerConfig) -> dict[str, Any]:
        return super().options_of(cfg) | {"root": (cfg.dim / cfg.width_ratio) ** 0.5}

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activate(self.gate_scale(gate)) * self.up_scale(up)


DENSE = {"mlp": MLP, "glu": GLU, "clamped_glu": ClampedGLU}  # of which there can be experts
