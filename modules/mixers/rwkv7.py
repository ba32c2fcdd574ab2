"""RWKV-7: a state of which each token takes out what it reads, with decays, rates and gates from few numbers."""

import math
from collections.abc import Iterator, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from configuration.sharing import gives, takes
from modules.linear import Linear
from modules.mixers.recurrent import Recurrent, State, held, hold, runs_of
from modules.precision import widen
from modules.scans import low_rank_rule
from modules.shift import previous
from modules.short_conv import without_padding
from modules.stream import Carrying, Context, Stream
from tools import LoggingModule, log_io

FALLS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)  # of r, w, k, v, a, g: how the share of the token before falls at first
WEAKER_KEYS = 0.1  # keys are drawn so much smaller than `init` says
FIRST = "first values"  # their name in the stream


class LoRA(LoggingModule):
    """act(x A) B with a few numbers between; A is zero at first, and B a tenth of an orthogonal matrix.

    Shape: (b, t, d) -> (b, t, i).
    """

    def __init__(self, dim: int, inner_dim: int, *, rank: int, activation: nn.Module):
        super().__init__()
        self.down, self.up = nn.Parameter(torch.empty(dim, rank)), nn.Parameter(torch.empty(rank, inner_dim))
        self.activation = activation
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"rank={len(self.up)}"

    def fan_in(self) -> dict[str, int]:
        return {"down": len(self.down), "up": len(self.up)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        rank, inner_dim = self.up.shape
        drawn = torch.empty(rank, inner_dim, device=self.up.device)  # in float32: bfloat16 has no such factorisation
        nn.init.zeros_(self.down)
        self.up.copy_(nn.init.orthogonal_(drawn, gain=0.1 * max(1.0, rank / inner_dim) ** 0.5))

    @log_io("b t d -> b t i")
    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x @ self.down) @ self.up


class FirstValues(LoggingModule):
    """v + (first - v) sigmoid(bias + x A B): a share of the values of the first layer, for each channel.

    Shape: v (b, t, i), x (b, t, d), first (b, t, i) -> (b, t, i) in float32.
    """

    def __init__(self, dim: int, inner_dim: int, *, rank: int):
        super().__init__()
        self.share = LoRA(dim, inner_dim, rank=rank, activation=nn.Identity())
        self.bias = nn.Parameter(torch.empty(inner_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.bias.copy_(0.73 - 0.4 * (places(len(self.bias)) - 0.5))

    @log_io("b t i, b t d, b t i -> b t i")
    def forward(self, v: Tensor, x: Tensor, first: Tensor) -> Tensor:
        return v + (first - v) * (widen(self.share(x)) + self.bias).sigmoid()


def places(size: int) -> Tensor:
    """From 0 to 1, for each of some channels."""
    return torch.arange(size, dtype=torch.float32) / max(1, size - 1)


def starts(inner: int, head_dim: int, dim: int, layer: int, num_layers: int) -> Iterator[tuple[str, Tensor]]:
    """The first values of the vectors of a layer, by their names: those of the authors' code."""
    place, within = places(inner), places(head_dim)
    centred, curve = place - 0.5, (2 * within - 1) * (2 * within - 1).abs()  # curve: from -1 to 1 over a head
    curve, depth = curve.repeat(inner // head_dim), layer / max(1, num_layers - 1)
    channels = torch.arange(dim, dtype=torch.float32) / dim
    yield "shares", torch.stack([1 - channels ** (fall * (1 - layer / num_layers)) for fall in FALLS])
    yield "decay_bias", -5.5 + 6 * place ** (1 + depth**0.3) + 2.5 * curve
    yield "rate_bias", -0.19 + 0.3 * curve + 0.4 * centred
    yield "unit_scale", 0.71 - 0.1 * centred
    for name, start in {"rate_share": 1.02, "own": -0.04, "norm_bias": 0.0,
                        "norm_scale": ((layer + 1) / num_layers) ** 0.7}.items():
        yield name, torch.full((inner,), start)


class RWKV7(Recurrent, Carrying):
    """S_t = diag(w) S_{t-1} - (a c) (c^T S_{t-1}) + k v^T for each head, with keys c of length 1; y = S^T r.

    Peng et al. 2025, arXiv:2503.14456; initial values are those of the authors' code. Each of six projections reads a
    mixture of the token and the one before. After a norm of each head the token's own value is added, as far as r and
    k agree, and a gate of few numbers multiplies all. Later layers mix in the values of the first.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, head_dim: int, ranks: Mapping[str, int], eps: float, takes_values: bool,
        gives_values: bool, layer: int, num_layers: int,
    ):
        super().__init__()
        inner = num_heads * head_dim
        self.head_dim, self.eps, self.gives_values = head_dim, eps, gives_values
        self.layer, self.num_layers = layer, num_layers
        self.shares = nn.Parameter(torch.empty(len(FALLS), dim))
        self.r, self.k, self.v = (Linear(dim, inner, bias=False) for _ in range(3))
        self.k.init_scale = WEAKER_KEYS
        self.decay, self.rate, self.gate = (LoRA(dim, inner, rank=ranks[name], activation=activation()) for (
            name, activation) in {"decay": nn.Tanh, "rate": nn.Identity, "gate": nn.Sigmoid}.items())
        self.first = FirstValues(dim, inner, rank=ranks["value"]) if takes_values else None
        self.decay_bias, self.rate_bias, self.unit_scale, self.rate_share, self.own, self.norm_scale, self.norm_bias = (
            nn.Parameter(torch.empty(inner)) for _ in range(7))
        self.out = Linear(inner, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "RWKV7":
        own = cfg.rwkv7
        return cls(cfg.dim, num_heads=own.num_heads, head_dim=own.width(cfg.dim), ranks=own.ranks(cfg.dim),
                   eps=own.norm_eps, takes_values=takes(cfg, FIRST), gives_values=gives(cfg, FIRST), layer=cfg.index,
                   num_layers=cfg.model.num_layers)

    def extra_repr(self) -> str:
        return f"heads={len(self.own) // self.head_dim}"

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for name, start in starts(len(self.own), self.head_dim, self.shares.shape[1], self.layer, self.num_layers):
            getattr(self, name).copy_(start)

    @log_io("b t i -> b h t n", name="heads")
    def heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h n) -> b h t n", n=self.head_dim)

    @log_io("b t d -> b t d, b t d, b t d, b t d, b t d, b t d")
    def shifted(self, x: Tensor, context: Context, cache: State | None) -> tuple[Tensor, ...]:
        """What r, w, k, v, a and g read: x_t + share (x_{t - 1} - x_t), with a share of each channel."""
        step = previous(x, context, cache and cache.conv) - x
        return tuple(x + share * step for share in self.shares.type_as(x))

    @log_io("b t d, b t d, ... t -> b h t n, b h t n, b h t n")
    def keys(self, x: Tensor, x_rate: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The keys that write, those of length 1 that read the state, and those that take out what was read."""
        k, rate = widen(self.k(x)), (widen(self.rate(x_rate)) + self.rate_bias).sigmoid()
        unit = nn.functional.normalize(self.heads(k * self.unit_scale), dim=-1)
        k = without_padding(k * (1 + (rate - 1) * self.rate_share), positions)
        return self.heads(k), unit, -unit * self.heads(rate)

    @log_io("b h t n -> b t i")
    def normalised(self, y: Tensor) -> Tensor:
        y = rearrange(nn.functional.layer_norm(y, y.shape[-1:], eps=self.eps), "b h t n -> b t (h n)")
        return y * self.norm_scale + self.norm_bias

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None, stream: Stream) -> tuple[Tensor, Stream]:
        x_r, x_w, x_k, x_v, x_a, x_g = self.shifted(x, context, cache)
        r, v = self.heads(widen(self.r(x_r))), widen(self.v(x_v))
        v = v if self.first is None else self.first(v, x_v, stream.carried[FIRST])
        k, unit, taken = self.keys(x_k, x_a, context.positions)
        decay = -math.exp(-0.5) * (widen(self.decay(x_w)) + self.decay_bias).sigmoid()  # logarithms
        y, last = low_rank_rule(r, k, self.heads(v), self.heads(decay), unit, taken, held(cache, "S"),
                                runs=runs_of(context))
        hold(cache, S=last)
        own = (r * k * rearrange(self.own, "(h n) -> h 1 n", n=self.head_dim)).sum(-1, keepdim=True) * self.heads(v)
        y = self.normalised(y) + rearrange(own, "b h t n -> b t (h n)")
        stream = stream.carry(**{FIRST: v}) if self.gives_values else stream
        return self.out(y.type_as(x) * self.gate(x_g)), stream
