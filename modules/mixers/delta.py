"""Mixers whose state obeys the delta rule: what a key held is erased before its new value is written."""

from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from config import LayerConfig
from configuration.recurrent.delta import DeltaNetConfig, DeltaRuleConfig, KdaConfig
from modules.linear import Linear
from modules.mixers.recurrent import (
    CausalConv,
    GatedNorm,
    LowRank,
    Recurrent,
    State,
    draw_step_bias,
    held,
    hold,
    runs_of,
    unit,
)
from modules.precision import widen
from modules.scans import erase_and_write
from modules.short_conv import ConvCache, without_padding
from modules.stream import Context
from tools import LoggingModule, log_io


class NoConv(LoggingModule):
    """silu(x), zero at padding, in place of a convolution. Shape: (b, t, _) -> (b, t, _)."""

    @log_io("b t _ -> b t _")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        return without_padding(nn.functional.silu(x), context.positions)


class Decay(LoggingModule):
    """The logarithm of what a state keeps from the token before: -exp(a) softplus(W x + b), with a rate a of each head.

    With a `bound` c, -c sigmoid(exp(a) (W x + b)) in its place. `steps` makes W: one number for each head, or for each
    channel of its keys. b is drawn by draw_step_bias, or starts at `start`; e^a is uniform from `least` to 16, or 1.
    Shape: (b, t, d) -> (b, h, t) or (b, h, t, n), in float32.
    """

    def __init__(
        self, steps: Callable[[], nn.Module], width: int, *, num_heads: int, least: float, start: float | None = None,
        bound: float | None = None,
    ):
        super().__init__()
        self.steps, self.least, self.start, self.bound = steps(), least, start, bound
        self.A_log, self.dt_bias = (nn.Parameter(torch.empty(size)) for size in (num_heads, width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.A_log.uniform_(self.least, 16).log_()
        draw_step_bias(self.dt_bias)
        if self.start is not None:
            nn.init.constant_(self.dt_bias, self.start)
        if self.bound is not None:
            nn.init.zeros_(self.A_log)

    @log_io("b t d -> b h t ...")
    def forward(self, x: Tensor) -> Tensor:
        steps = widen(self.steps(x)) + widen(self.dt_bias)
        steps = rearrange(steps, "b t (h n) -> b t h n", h=len(self.A_log))
        rate = rearrange(widen(self.A_log).exp(), "h -> h 1")
        g = -rate * nn.functional.softplus(steps) if self.bound is None else -self.bound * (rate * steps).sigmoid()
        g = rearrange(g, "b t h n -> b h t n")
        return g.squeeze(-1) if g.shape[-1] == 1 else g


class Strength(LoggingModule):
    """How much of what a key held is erased, and how much of the new value is written: the same, for each head.

    `most` is the largest, 1 or 2. Shape: (b, t, d) -> (b, h, t, 1), twice, in float32.
    """

    def __init__(self, dim: int, *, num_heads: int, num_updates: int = 1, most: float):
        super().__init__()
        self.num_heads, self.most = num_heads, most
        self.beta = Linear(dim, num_updates * num_heads, bias=False)

    @log_io("b t d -> b h _ one, b h _ one")
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        beta = self.most * widen(self.beta(x)).sigmoid()
        beta = rearrange(beta, "b t (u h) -> b h (t u) 1", h=self.num_heads)
        return beta, beta


class ChannelStrength(LoggingModule):
    """The same for each channel of a key, and for each of a value. Shape: (b, t, d) -> (b, h, t, n), (b, h, t, p)."""

    def __init__(self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, most: float):
        super().__init__()
        self.num_heads, self.most = num_heads, most
        self.erase, self.write = (Linear(dim, num_heads * width, bias=False) for width in (key_dim, value_dim))

    @log_io("b t d -> b h t n, b h t p")
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        erase, write = (rearrange(widen(map_(x)).sigmoid(), "b t (h n) -> b h t n", h=self.num_heads)
                        for map_ in (self.erase, self.write))
        return self.most * erase, write


class DeltaRule(Recurrent):
    """y_t = S_t^T q_t with S_t = S' + k_t (w_t v_t - S'^T (e_t k_t))^T, where S' = diag(exp(g_t)) S_{t-1}; in heads.

    q, k and v are silu(conv(W x)); q and k have length 1. The output is out(norm(y) gate(x)). `decay` makes g, None =
    0; `strength` makes e and w; `gate` what is multiplied with. With `num_updates` a token has so many keys and values,
    which are written one after another; the state decays before the first and is read after the last.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, own: DeltaRuleConfig, *, decay: Callable[[], nn.Module] | None,
        strength: Callable[[], nn.Module], gate: Callable[[], nn.Module] | None, activation: str = "silu",
        num_updates: int = 1,
    ):
        super().__init__()
        self.key_dim, self.value_dim, self.num_updates = own.key_width(dim), own.value_width(dim), num_updates
        self.num_heads, self.shared = own.num_heads, own.num_heads // own.key_heads
        values = own.num_heads * self.value_dim
        self.widths = own.widths(dim)
        self.q, self.k, self.v = (Linear(dim, width, bias=False) for width in self.widths)
        self.conv = CausalConv(sum(self.widths), length=own.conv_len) if own.conv_len else NoConv()
        self.decay, self.strength, self.gate = decay and decay(), strength(), gate and gate()
        self.norm = GatedNorm(values, group=self.value_dim, activation=activation, eps=own.norm_eps)
        self.out = Linear(values, dim, bias=False)

    @log_io("b t d -> b h _ n, b h _ n, b h _ p")
    def project(self, x: Tensor, context: Context, cache: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, those of all updates in a row; zero at padding."""
        mixed = torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1)
        q, k, v = self.conv(mixed, context, cache and cache.conv).split(self.widths, dim=-1)
        q = rearrange(q, "b t (g n) -> b g t 1 n", n=self.key_dim)
        k = rearrange(k, "b t (u g n) -> b g t u n", u=self.num_updates, n=self.key_dim)
        v = rearrange(v, "b t (u h p) -> b h (t u) p", u=self.num_updates, p=self.value_dim)
        q = nn.functional.pad(unit(q) * self.key_dim**-0.5, (0, 0, self.num_updates - 1, 0))
        q, k = (repeat(y, "b g t u n -> b (g h) (t u) n", h=self.shared) for y in (q, unit(k)))
        return q, k, v

    def decays(self, x: Tensor) -> Tensor:
        """Shape: (b, t, d) -> (b, h, t), or (b, h, t, n): 0 for each update of a token but the first."""
        if self.decay is None:
            return torch.zeros(len(x), self.num_heads, self.num_updates * x.shape[1], device=x.device)
        g = self.decay(x)
        if self.num_updates == 1:
            return g
        return nn.functional.pad(g.unsqueeze(-1), (0, self.num_updates - 1)).flatten(2)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        q, k, v = self.project(x, context, cache)
        erase, write = self.strength(x)
        runs = runs_of(context)
        runs = runs if runs is None else runs.repeat_interleave(self.num_updates, dim=1)
        y, state = erase_and_write(q, k, v * write, self.decays(x), k * erase, held(cache, "state"), runs=runs)
        hold(cache, state=state)
        y = rearrange(y[:, :, self.num_updates - 1::self.num_updates], "b h t p -> b t (h p)")
        return self.out(self.norm(y, self.gate and self.gate(x)).type_as(x))


def most_erased(own: DeltaRuleConfig) -> float:
    return 2.0 if own.neg_eigenvalues else 1.0


class DeltaNet(DeltaRule):
    """The delta rule without a decay. Yang et al. 2024, arXiv:2406.06484."""

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "DeltaNet":
        return cls(cfg.dim, cfg.deltanet, decay=None, **cls.options(cfg.dim, cfg.deltanet))

    @staticmethod
    def options(dim: int, own: DeltaNetConfig) -> dict:
        """What does not concern the decay."""
        return {"num_updates": own.num_updates, "strength": partial(
                    Strength, dim, num_heads=own.num_heads, num_updates=own.num_updates, most=most_erased(own)),
                "gate": partial(Linear, dim, own.num_heads * own.value_width(dim), bias=False) if own.gate else None}


class GatedDelta(DeltaNet):
    """Gated DeltaNet: a decay for each head. Yang et al. 2024, arXiv:2412.06464; as in Qwen3-Next.

    With num_updates above 1 Gated DeltaProduct, Siems et al. 2025, arXiv:2502.10297.
    """

    LEAST_RATE = 0.01

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "GatedDelta":
        own = cfg.gated_delta
        decay = partial(Decay, partial(Linear, cfg.dim, own.num_heads, bias=False), own.num_heads,
                        num_heads=own.num_heads, least=cls.LEAST_RATE, start=own.step_bias)
        return cls(cfg.dim, own, decay=decay, **cls.options(cfg.dim, own))


class KimiDelta(DeltaRule):
    """Kimi Delta Attention: a decay for each channel of a key, and a sigmoid as gate.

    Kimi Team 2025, arXiv:2510.26692; the bounded decay as in GLM-5-Next.
    """

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "KimiDelta":
        own = cfg.kda
        return cls(cfg.dim, own, strength=partial(Strength, cfg.dim, num_heads=own.num_heads, most=most_erased(own)),
                   **cls.options(cfg.dim, own))

    @staticmethod
    def options(dim: int, own: KdaConfig) -> dict:
        """What does not concern the strength of updates."""
        keys, values = own.num_heads * own.key_width(dim), own.num_heads * own.value_width(dim)
        rank = own.inner_rank(dim)
        return {"decay": partial(Decay, partial(LowRank, dim, keys, rank=rank), keys, num_heads=own.num_heads,
                                 least=1.0, bound=own.decay_bound),
                "gate": partial(LowRank, dim, values, rank=rank, bias=own.gate_bias), "activation": "sigmoid"}


class GatedDelta2(KimiDelta):
    """Gated DeltaNet-2: KDA that erases by channels of a key, and writes by channels of a value.

    Hatamizadeh et al. 2026, arXiv:2605.22791.
    """

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "GatedDelta2":
        own = cfg.gdn2
        strength = partial(ChannelStrength, cfg.dim, num_heads=own.num_heads, key_dim=own.key_width(cfg.dim),
                           value_dim=own.value_width(cfg.dim), most=most_erased(own))
        return cls(cfg.dim, own, strength=strength, **cls.options(cfg.dim, own))
