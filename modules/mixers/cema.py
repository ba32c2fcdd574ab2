"""Megalodon's mixer: complex moving averages, then attention within chunks to what they gave, with gates."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.attend import SDPA, of_any_widths
from modules.linear import Linear
from modules.masks import Pattern
from modules.mixers.attention import what_is_seen, with_cached
from modules.mixers.blocked import attend_in_blocks, block_of
from modules.mixers.kv_cache import KVCache, make_kv_cache
from modules.mixers.recurrent import Recurrent, State, held, hold, runs_of
from modules.norm import RMSNorm
from modules.precision import widen
from modules.rope import ROTARY
from modules.scans import ema
from modules.stream import Context
from modules.timestep_norm import TimestepNorm
from tools import LoggingModule, log_io


class ComplexEMA(LoggingModule):
    """Of each channel, n moving averages with complex decays; their mixture, and a share of the channel itself.

    Ma et al. 2024, arXiv:2404.08801, section 3.1. The angle of the k-th is k times that of the channel.
    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, state_dim: int):
        super().__init__()
        self.alpha, self.delta = (nn.Parameter(torch.empty(dim, state_dim, 1)) for _ in range(2))
        self.theta, self.omega = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.gamma = nn.Parameter(torch.empty(dim, state_dim, 2))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for drawn, std in ((self.alpha, 0.2), (self.delta, 0.2), (self.gamma, 1.0)):
            nn.init.normal_(drawn, std=std)
        nn.init.zeros_(self.gamma[..., 1])
        most = math.erf(4 / 2**0.5)  # of a normal distribution with standard deviation 1/4, within -1 and 1
        self.omega.uniform_(-most, most).erfinv_().mul_(2**0.5 / 4).clamp_(-1, 1)
        dim, device = len(self.theta), self.theta.device
        shares = dim ** (-torch.arange(1, dim + 1, dtype=torch.float32, device=device) / dim)  # of a turn, all channels
        self.theta.index_copy_(0, torch.randperm(dim, device=device), shares.logit().to(self.theta.dtype))

    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log |q|, the angle of q, p and gamma, as `ema` takes them. Shape: (d, n), three times, (d, n, 2)."""
        p, delta = (widen(x).squeeze(-1).sigmoid() for x in (self.alpha, self.delta))
        n = p.shape[1]
        steps = torch.arange(1, n + 1, device=p.device, dtype=p.dtype) * (2 * math.pi / n)
        return (torch.log1p(-p * delta), widen(self.theta).sigmoid().unsqueeze(-1) * steps, p,
                widen(self.gamma) * n**-0.5)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        wide = widen(x)
        y, last = ema(wide, *self.numbers(), held(cache, "h"), runs=runs_of(context))
        hold(cache, h=last)
        return (y + wide * self.omega).type_as(x)


class ChunkState(State):
    """A state, and the keys and values of the tokens of a chunk."""

    def __init__(self, keys: KVCache):
        super().__init__()
        self.keys = keys

    def tensors(self) -> list[Tensor]:
        return [*super().tensors(), *([] if self.keys.keys is None else [self.keys.keys, self.keys.values])]

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        super().keep_rows(rows, padding=padding)
        self.keys.keep_rows(rows, padding=padding)


class CEMA(Recurrent):
    """out([m, o r]) with moving averages m, attention o within chunks, and a gate r.

    Ma et al. 2024, arXiv:2404.08801 (Megalodon), section 3.3 and 3.4. The mixer normalises its input over time, so its
    wiring has no norm before it: x' = timestep_norm(x), m = rms(cema(x')). Queries and keys are two scales and shifts
    of one normalised projection of m; values come from x', and the gate from m. Positions count from 0 in each chunk.
    Shape: x (b, t, d) -> (b, t, d).
    """

    own_norm = True  # it normalises its input itself

    def __init__(
        self, dim: int, *, state_dim: int, num_heads: int, qk_dim: int, value_dim: int, chunk: int, num_groups: int,
        eps: float, rotary: nn.Module | None, scale: float,
    ):
        super().__init__()
        self.num_heads, self.chunk, self.pattern = num_heads, chunk, Pattern(chunk=chunk)
        self.timestep_norm = TimestepNorm(dim, num_groups=num_groups, eps=eps)
        self.cema, self.norm = ComplexEMA(dim, state_dim=state_dim), RMSNorm(dim, eps=eps)
        self.z, self.v, self.gate = (Linear(dim, width) for width in (qk_dim, value_dim, value_dim))
        self.head_norm = RMSNorm(qk_dim // num_heads, eps=eps, affine=False)
        self.scales, self.shifts = (nn.Parameter(torch.empty(2, qk_dim)) for _ in range(2))
        self.rotary, self.scale, self.attend = rotary, scale, of_any_widths(SDPA)(scale=1.0)
        self.out = Linear(dim + value_dim, dim)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "CEMA":
        own = cfg.cema
        qk_dim = own.qk_width(cfg.dim)
        scale = (qk_dim // own.num_heads * (cfg.width_ratio if own.qk_dim is None else 1.0)) ** -0.5
        rotary = ROTARY[cfg.rope.layout](qk_dim // own.num_heads, cfg.rope) if cfg.position == "rope" else None
        return cls(cfg.dim, state_dim=own.state_dim, num_heads=own.num_heads, qk_dim=qk_dim,
                   value_dim=own.value_width(cfg.dim), chunk=own.chunk, num_groups=own.norm_groups, eps=own.norm_eps,
                   rotary=rotary, scale=scale)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scales)
        nn.init.zeros_(self.shifts)

    def make_cache(self, max_len: int) -> ChunkState:
        return ChunkState(make_kv_cache(max_len, self.pattern))

    @log_io("b t d, b t d, ... t -> b h t _, b h t _, b h t _")
    def project(self, m: Tensor, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head."""
        z = self.head_norm(rearrange(self.z(m), "b t (h n) -> b h t n", h=self.num_heads))
        scales, shifts = (rearrange(part, "two (h n) -> two h 1 n", h=self.num_heads).type_as(z) for part in (
            self.scales * self.scale, self.shifts))
        q, k = z * scales[0] + shifts[0], z * scales[1] + shifts[1]
        if self.rotary is not None:
            angles = self.rotary.angles(positions % self.chunk)
            q, k = self.rotary(q, angles), self.rotary(k, angles)
        v = nn.functional.silu(self.v(x))
        return q, k, rearrange(v, "b t (h p) -> b h t p", h=self.num_heads)

    @log_io("b h t _, b h t _, b h t _ -> b t i")
    def attention(self, q: Tensor, k: Tensor, v: Tensor, context: Context, cache: ChunkState | None) -> Tensor:
        """What each token reads of its chunk."""
        k, v, positions = with_cached(k, v, context.positions, cache and cache.keys)
        fresh, size = k.shape[2] == q.shape[2], block_of(self.pattern, context, q.shape[2])
        if fresh and size is not None:
            y = attend_in_blocks(self.attend, q, k, v, self.pattern, context, size=size)
        else:
            y = self.attend(q, k, v, what_is_seen(context, positions, pattern=self.pattern, fresh=fresh), None)
        return rearrange(y, "b h t p -> b t (h p)")

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ChunkState | None = None) -> Tensor:
        x = self.timestep_norm(x, context, cache)
        m = self.norm(self.cema(x, context, cache))
        y = self.attention(*self.project(m, x, context.positions), context, cache)
        return self.out(torch.cat((m, y * nn.functional.silu(self.gate(m))), dim=-1))
