"""Positions of tokens: the `position` flag.

A kind acts on the embedding (learned, sinusoidal), on queries and keys (rope), or on the attention scores (alibi, t5).
Positions are an input of shape (t,) or, if rows start at different positions, (b, t); padding is negative.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig, SinusoidalConfig
from modules.precision import Float32Buffers, constants, widen
from modules.rope import ROTARY, inverse_wavelengths
from tools import LoggingModule, log_io


class LearnedPosition(LoggingModule):
    """Add a learned vector for each position. Radford et al. 2018 (GPT).

    Shape: x (b, t, d), positions (t,) or (b, t) -> (b, t, d).
    Raises ValueError if a text reaches past max_seq_len; in training or compiled, on an accelerator, only if t does:
    to read the positions would make the CPU wait for it.
    """

    def __init__(self, dim: int, *, max_seq_len: int):
        super().__init__()
        self.table = nn.Embedding(max_seq_len, dim)

    @log_io("b t d, ... t -> b t d")
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        size, compiled = self.table.num_embeddings, torch.compiler.is_compiling()
        if not compiled:
            refuse_longer(x.shape[1], size)
        if compiled or type(positions) is not Tensor:  # compiled, it refuses as it runs, in the same words
            return x + self.table(torch.ops.shapeshifter.places(positions, size, False))
        return x + self.table(places(positions, size, not self.training))


def places(positions: Tensor, max_seq_len: int, wait: bool) -> Tensor:
    """The rows of a table of positions, 0 for padding. Shape: (..., t) -> (..., t).

    Raises ValueError for one past the table, on an accelerator only if it may `wait` for their values.
    """
    length = positions.shape[-1]
    if positions.numel() and (positions.is_cpu or wait and not positions.is_meta):
        length = max(length, int(positions.max()) + 1)
    refuse_longer(length, max_seq_len)
    return positions.clamp(min=0)


def refuse_longer(length: int, max_seq_len: int) -> None:
    if length > max_seq_len:
        raise ValueError(f"max_seq_len={max_seq_len}: a text of {length} tokens has no learned positions past it; use "
                         "position='rope', or a larger max_seq_len")


@torch.library.custom_op("shapeshifter::places", mutates_args=())
def _places(positions: Tensor, max_seq_len: int, wait: bool) -> Tensor:
    return places(positions, max_seq_len, wait)


@_places.register_fake
def _(positions: Tensor, max_seq_len: int, wait: bool) -> Tensor:
    return torch.empty_like(positions)


PLAIN = SinusoidalConfig()


class SinusoidalPosition(Float32Buffers):
    """Add sines and cosines of geometric wavelengths. Vaswani et al. 2017, arXiv:1706.03762, 3.5.

    `layout` says which channels have the sine and the cosine of an angle, `first` the position of the first token.
    Shape: x (b, t, d), positions (t,) or (b, t) -> (b, t, d).
    """

    def __init__(self, dim: int, cfg: SinusoidalConfig = PLAIN):
        super().__init__()
        self.dim, self.cfg = dim, cfg
        self.order = {"interleaved": "... c two -> ... (c two)", "half": "... c two -> ... (two c)"}[cfg.layout]
        self.frequencies = constants(dim // 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.frequencies.copy_(inverse_wavelengths(self.dim, self.cfg.theta))

    @log_io("b t d, ... t -> b t d")
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = (positions + self.cfg.first).float().unsqueeze(-1) * self.frequencies  # (..., t, d/2)
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1)
        return x + rearrange(waves, self.order).type_as(x)


class ALiBi(Float32Buffers):
    """Penalise each score by the distance to its key, on either side, a fixed slope for each head.

    Press, Smith & Lewis 2021, arXiv:2108.12409; `scale` is a factor on the slopes. Head counts that are not a power of
    two take every other slope of the next one, as the authors' code does.
    Shape: q_positions (t,), k_positions (s,) -> (h, t, s), or with a batch axis on both -> (b, h, t, s).
    """

    def __init__(self, num_heads: int, *, scale: float = 1.0):
        super().__init__()
        self.scale, self.slopes = scale, constants(num_heads)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "ALiBi":
        return cls(cfg.attention.num_heads, scale=cfg.alibi.scale)

    def reset_parameters(self) -> None:
        self.slopes.copy_(alibi_slopes(len(self.slopes), self.scale))

    @log_io("... t, ... s -> ... h t s")
    def forward(self, q_positions: Tensor, k_positions: Tensor, *, causal: bool = True) -> Tensor:
        distance = q_positions.unsqueeze(-1) - k_positions.unsqueeze(-2)  # (..., t, s)
        return -self.slopes.view(-1, 1, 1) * distance.abs().unsqueeze(-3)


def alibi_slopes(num_heads: int, scale: float = 1.0) -> Tensor:
    """The geometric slopes 2^(-8i/h) of arXiv:2108.12409, section 3, times `scale`. Shape: (h,)."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return torch.tensor([scale * slope for slope in slopes], dtype=torch.float32)


class T5Bias(LoggingModule):
    """Add a learned number to each score, by the distance to its key: a table for each head, in buckets.

    Raffel et al. 2019, arXiv:1910.10683. Half of the buckets are one distance each, the others grow geometrically up to
    max_distance. If not `causal`, keys after the query have the second half of the table for themselves; otherwise they
    have the bucket of its own place. The table starts at zero.
    Shape: q_positions (t,), k_positions (s,) -> (h, t, s), or with a batch axis on both -> (b, h, t, s).
    """

    def __init__(self, num_heads: int, *, num_buckets: int = 32, max_distance: int = 128):
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "T5Bias":
        return cls(cfg.attention.num_heads, num_buckets=cfg.t5.num_buckets, max_distance=cfg.t5.max_distance)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.table)

    def buckets(self, distance: Tensor, *, causal: bool = True) -> Tensor:
        """The row of the table of each distance from a query back to a key. Shape: (..., t, s) -> (..., t, s)."""
        if causal:
            return self.graded(distance.clamp(min=0), len(self.table))
        half = len(self.table) // 2
        return self.graded(distance.abs(), half) + half * (distance < 0)

    def graded(self, near: Tensor, number: int) -> Tensor:
        """The one of `number` buckets of each distance from 0 up. Shape: (..., t, s) -> (..., t, s)."""
        exact = number // 2
        turns = torch.log(near.clamp(min=exact).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (turns * (number - exact)).long()
        return torch.where(near < exact, near, far.clamp(max=number - 1))

    @log_io("... t, ... s -> ... h t s")
    def forward(self, q_positions: Tensor, k_positions: Tensor, *, causal: bool = True) -> Tensor:
        distance = q_positions.unsqueeze(-1) - k_positions.unsqueeze(-2)  # (..., t, s)
        return rearrange(self.table[self.buckets(distance, causal=causal)], "... t s h -> ... h t s")


class Temperature(LoggingModule):
    """Multiply the query at position i by 1 + a ln(1 + floor((i + first) / length)): scores stay apart in long texts.

    Llama 4, Meta 2025; after Nakanishi 2025, arXiv:2501.19399.
    Shape: q (b, h, t, p), positions (t,) or (b, t) -> (b, h, t, p).
    """

    def __init__(self, scale: float, *, length: int, first: int = 0):
        super().__init__()
        self.scale, self.length, self.first = scale, length, first

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Temperature | None":
        own = cfg.attention
        if own.temperature_scale is None:
            return None
        return cls(own.temperature_scale, length=own.temperature_len, first=own.temperature_first)

    def extra_repr(self) -> str:
        return f"{self.scale}, length={self.length}, first={self.first}"

    @log_io("b h t p, ... t -> b h t p")
    def forward(self, q: Tensor, positions: Tensor) -> Tensor:
        steps = (positions.clamp(min=0) + self.first) // self.length
        factor = 1 + self.scale * torch.log1p(steps.float())
        factor = factor.unsqueeze(-1) if positions.dim() == 1 else rearrange(factor, "b t -> b 1 t 1")
        return (widen(q) * factor).type_as(q)


# kinds act on the embedding, on queries and keys (a class for each rope.layout), or on the scores
EMBEDDED = {"learned": LearnedPosition, "sinusoidal": SinusoidalPosition}
BIASES = {"alibi": ALiBi, "t5": T5Bias}
POSITIONS = {"none": None, **EMBEDDED, "rope": ROTARY, **BIASES}
