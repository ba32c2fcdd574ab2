"""What recurrent mixers share: the state that they keep of a text, and the norm of their output with its gate."""

import math
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from modules.linear import Linear
from modules.norm import fill
from modules.precision import widen
from modules.short_conv import ConvCache, ShortConv, without_padding
from modules.stream import Context
from tools import LoggingModule, log_io

GATES = {"silu": nn.functional.silu, "sigmoid": torch.sigmoid, "none": lambda x: x,
         "gelu_tanh": partial(nn.functional.gelu, approximate="tanh")}


class State:
    """What a recurrent mixer keeps of each text, whose size does not grow with it.

    `held` has tensors by name, (b, ...) in float32: the state after the last token; `conv` the last inputs of its
    short convolution. Empty before the first token.
    """

    def __init__(self):
        self.held: dict[str, Tensor] = {}
        self.conv = ConvCache()

    def tensors(self) -> list[Tensor]:
        """All that is kept of a text of any length."""
        return [*self.held.values(), *([] if self.conv.inputs is None else [self.conv.inputs])]

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        """Keep these rows; their first `padding` tokens left nothing in the state."""
        self.held = {name: x[rows] for name, x in self.held.items()}
        self.conv.keep_rows(rows, padding=padding)


def held(cache: State | None, name: str) -> Tensor | None:
    """A part of the state before these tokens; None = these are the first."""
    return None if cache is None else cache.held.get(name)


def hold(cache: State | None, **parts: Tensor) -> None:
    """Keep the state after these tokens, if there is a cache."""
    if cache is not None:
        cache.held = cache.held | {name: x.clone() for name, x in parts.items()}  # a view would keep the states of all


def runs_of(context: Context) -> Tensor | None:
    """The document of each token, for a scan; None = a row is one text. Shape: (b, t)."""
    return None if context.documents is None else context.documents.ids


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1, in float32: x / sqrt(|x|^2 + 1e-6), so that zeros stay zeros. Shape: any."""
    x = widen(x)
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


class Recurrent(LoggingModule):
    """A mixer that reads a text from its first token to its last, and keeps a State in place of keys and values.

    The state has a fixed size, but for convolutions over the whole text: see modules/mixers/long_conv.py.
    """

    def make_cache(self, max_len: int) -> State:
        return State()


class CausalConv(ShortConv):
    """The causal depthwise convolution of a recurrent mixer: act(b + sum over i < length of w_i * x_{t - i}).

    Nothing passes from padding or from another document; at padding the result is zero.
    Shape: (b, t, _) -> (b, t, _).
    """

    def __init__(self, channels: int, *, length: int, bias: bool = False, activation: str = "silu"):
        super().__init__(channels, length=length, bias=bias)
        self.activation = GATES[activation]

    @log_io("b t _ -> b t _")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        return without_padding(self.activation(self.mix(x, context, cache)), context.positions)


class GatedNorm(LoggingModule):
    """The norm of each group of channels of a mixer's output, times an activation of a gate.

    `shared`: all groups have the same scales, as heads do. `centred`: a LayerNorm, without a bias, in place of an
    RMSNorm. Shape: y (b, t, _), gate (b, t, _) or None -> (b, t, _). Statistics in float32; the result has the dtype
    of y.
    """

    def __init__(
        self, channels: int, *, group: int, activation: str = "silu", eps: float = 1e-5, shared: bool = True,
        centred: bool = False,
    ):
        super().__init__()
        self.group, self.eps, self.activation = group, eps, GATES[activation]
        self.normal = nn.functional.layer_norm if centred else nn.functional.rms_norm
        self.scale = nn.Parameter(torch.empty(group if shared else channels))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"group={self.group}, eps={self.eps}"

    def reset_parameters(self) -> None:
        fill(self.scale, 1.0)

    def normalise(self, wide: Tensor) -> Tensor:
        """Shape: (b, t, _) -> (b, t, _)."""
        groups = self.normal(rearrange(wide, "... (h p) -> ... h p", p=self.group), (self.group,), eps=self.eps)
        scale = self.scale.to(wide.dtype).view(-1, self.group)  # (1, p) or (h, p)
        return rearrange(groups * scale, "... h p -> ... (h p)")

    @log_io("b t _, b t _ -> b t _")
    def forward(self, y: Tensor, gate: Tensor | None = None) -> Tensor:
        wide = self.normalise(widen(y))
        return (wide if gate is None else wide * self.activation(widen(gate))).type_as(y)


class NormOfGated(GatedNorm):
    """The norm of the product in place of the product with the norm, as in Mamba-2. Shape: as of GatedNorm."""

    @log_io("b t _, b t _ -> b t _")
    def forward(self, y: Tensor, gate: Tensor) -> Tensor:
        return self.normalise(widen(y) * self.activation(widen(gate))).type_as(y)


class LowRank(LoggingModule):
    """up(down(x)), through `rank` numbers. Shape: (b, t, d) -> (b, t, _)."""

    def __init__(self, dim: int, out_dim: int, *, rank: int, bias: bool = False):
        super().__init__()
        self.down, self.up = Linear(dim, rank, bias=False), Linear(rank, out_dim, bias=bias)

    @log_io("b t d -> b t _")
    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class Gate(LoggingModule):
    """A mixer's output times the silu of its gate, without a norm. Shape: y and gate (b, t, _) -> (b, t, _)."""

    @log_io("b t _, b t _ -> b t _")
    def forward(self, y: Tensor, gate: Tensor) -> Tensor:
        return y * nn.functional.silu(gate.to(y.dtype))


@torch.no_grad()
def draw_step_bias(bias: Tensor, *, low: float = 1e-3, high: float = 0.1, least: float = 1e-4) -> None:
    """Draw a bias whose softplus is uniform in the logarithm between `low` and `high`. Gu & Dao 2023, arXiv:2312.00752.

    It is the size of a step of time at first; no smaller than `least`.
    """
    bias.uniform_(math.log(low), math.log(high)).exp_().clamp_(min=least).expm1_().log_()
