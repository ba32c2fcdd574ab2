"""Vectors of tokens with noise, in and out of the residual stream: the `noised` flag."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.embed import Embed
from modules.head import Head
from modules.linear import Linear
from modules.precision import Float32Buffers, widen
from tools import LoggingModule, log_io

KEPT = 10  # losses of each noise step
UNIFORM_SHARE = 0.001  # of the chance of a step, whatever its losses


class Projection(LoggingModule):
    """second(tanh(first(x))). Shape: (..., i) -> (..., o)."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int):
        super().__init__()
        self.first, self.second = Linear(inputs, hidden), Linear(hidden, outputs)

    @log_io
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class TimeEmbedding(LoggingModule):
    """second(silu(first(waves))), with cosines and sines of the time at wavelengths from 2 pi to 10,000 times that.

    Ho et al. 2020, arXiv:2006.11239. Shape: times (b,), from 0 to 1000 -> (b, d).
    """

    def __init__(self, dim: int, *, wave_dim: int):
        super().__init__()
        self.wave_dim = wave_dim
        self.first, self.second = Linear(wave_dim, 4 * wave_dim), Linear(4 * wave_dim, dim)

    @log_io("b -> b d")
    def forward(self, times: Tensor) -> Tensor:
        half = self.wave_dim // 2
        rates = torch.exp(-math.log(10_000) / half * torch.arange(half, device=times.device))
        angles = times.unsqueeze(-1) * rates  # (b, u/2)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).type_as(self.first.weight)
        return self.second(nn.functional.silu(self.first(waves)))


class LossHistory(Float32Buffers):
    """The last 10 losses of each noise step, from which its chance to be drawn follows.

    It is proportional to the root of the mean square of these losses, once all steps have 10, and mixed with a uniform
    chance of 0.001. Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.3. Checkpoints hold it.
    """

    def __init__(self, num_steps: int):
        super().__init__()
        self.losses = nn.Buffer(torch.empty(num_steps, KEPT))
        self.count = nn.Buffer(torch.empty(num_steps, dtype=torch.int64))  # of all losses noted so far
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.losses)
        nn.init.zeros_(self.count)

    def chances(self) -> Tensor:
        """The probability of each step. Shape: (n,), float64."""
        size = self.losses.double().square().mean(-1).sqrt()
        share = size / size.sum().clamp(min=1e-30)
        uniform = torch.full_like(share, 1 / len(share))
        return torch.where((self.count >= KEPT).all(), UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * share, uniform)

    @torch.no_grad()
    def note(self, steps: Tensor, losses: Tensor) -> None:
        """Keep the losses of steps, one after another; the oldest of a step give way. Shape: (b,), (b,)."""
        same = steps.unsqueeze(-1) == steps
        earlier, later = same.tril(-1).sum(-1), same.triu(1).sum(-1)
        place = steps * KEPT + (self.count[steps] + earlier) % KEPT
        stays = (later < KEPT).to(self.losses.dtype)  # no two that stay have one place
        empty = torch.zeros_like(self.losses).flatten()
        new = empty.index_add(0, place, losses.to(self.losses.dtype) * stays)
        is_new = empty.index_add(0, place, stays) > 0
        self.losses.copy_(torch.where(is_new, new, self.losses.flatten()).view_as(self.losses))
        self.count.add_(torch.zeros_like(self.count).index_add(0, steps, torch.ones_like(steps)))


class NoisedEmbed(Embed):
    """Vectors of tokens, which may have noise, into the stream: up(vectors) + time + position.

    The vectors are drawn from a standard normal distribution, so that noise of the same size hides them. Gong et al.
    2022, arXiv:2210.08933 (DiffuSeq). Tokens alone are read as vectors without noise, at time 0.
    Shape: tokens (b, t) int64, or vectors (b, t, u) with times (b,); positions (t,) or (b, t) -> (b, t, d).
    """

    def __init__(self, vocab_size: int, *, dim: int, vector_dim: int, num_steps: int, **options):
        super().__init__(vocab_size, dim=vector_dim, **options)
        self.tokens.init_std = 1.0
        self.up = Projection(vector_dim, dim, hidden=dim)
        self.time = TimeEmbedding(dim, wave_dim=vector_dim)
        self.history = LossHistory(num_steps)

    @classmethod
    def options_of(cls, cfg: ModelConfig) -> dict[str, Any]:
        return super().options_of(cfg) | {"vector_dim": cfg.noised_dim, "num_steps": cfg.noised_steps}

    @log_io("b t, ... t -> b t d")
    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.enter(self.tokens(tokens), torch.zeros(tokens.shape[0], device=tokens.device), positions)

    @log_io("b t u, b, ... t -> b t d")
    def enter(self, vectors: Tensor, times: Tensor, positions: Tensor) -> Tensor:
        """Vectors with noise, and how much: times go from 0, almost none, to 1000, noise alone."""
        x = self.up(vectors) + self.time(times).unsqueeze(1)
        if self.position is not None:
            x = self.position(x, positions)
        return self.dropout(self.norm(x))


class NoisedHead(Head):
    """From the stream to vectors of tokens without noise, and to logits by their products with those of all tokens.

    Shape: (b, t, d) -> (b, t, v), in float32 (of a model in float64, in float64).
    """

    def __init__(self, dim: int, *, vector_dim: int, **options):
        super().__init__(vector_dim, **options)
        self.down = Projection(dim, vector_dim, hidden=dim)

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "NoisedHead":
        return cls(cfg.dim, vector_dim=cfg.noised_dim, vocab_size=cfg.padded_vocab_size, bias=cfg.head_bias)

    @log_io("b t d -> b t v")
    def forward(self, x: Tensor) -> Tensor:
        return self.round(self.vectors(x))

    @log_io("b t d -> b t u")
    def vectors(self, x: Tensor) -> Tensor:
        """The vectors without noise, in float32."""
        return widen(self.down(x))

    @log_io("... u -> ... v")
    def round(self, vectors: Tensor) -> Tensor:
        """The logits of vectors."""
        return widen(self.unembed(vectors.type_as(self.unembed.weight)))


def make_embed(cfg: ModelConfig) -> Embed:
    return (NoisedEmbed if cfg.noised else Embed).from_config(cfg)


def make_head(cfg: ModelConfig) -> Head:
    return (NoisedHead if cfg.noised else Head).from_config(cfg)
