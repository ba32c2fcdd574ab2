"""Rotary positions (position=rope), and how their frequencies are changed for longer texts (rope.scaling)."""

import math

import torch
from torch import Tensor

from config import RopeConfig, rotated_channels
from modules.kernels import rotate
from modules.norm import times
from modules.precision import Float32Buffers, constants
from tools import log_io

PLAIN = RopeConfig()


class RoPE(Float32Buffers):
    """Rotate pairs of channels by an angle that grows with the position.

    Su et al. 2021, arXiv:2104.09864. Channel i of a head is a pair with i + p/2 (Llama's layout).
    `rope.fraction` below 1 rotates only the first channels (GPT-NeoX); `rope.scaling` changes the frequencies.
    Shape: x (b, h, t, p), cosine and sine from `angles(positions)` -> (b, h, t, p). Computed in float32.
    Raises ValueError if the fraction is not a whole number of pairs.
    """

    def __init__(self, head_dim: int, rope: RopeConfig = PLAIN):
        super().__init__()
        self.rope, self.rotated = rope, rotated_channels(head_dim, rope.fraction)
        self.frequencies = constants(self.rotated // 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        frequencies = inverse_wavelengths(self.rotated, self.rope.theta)
        self.frequencies.copy_(SCALINGS[self.rope.scaling](frequencies, self.rope))

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each angle: (t, c), or (b, 1, t, c) for positions (b, t); c pairs."""
        angles = positions.float().unsqueeze(-1) * self.frequencies
        if angles.dim() == 3:
            angles = angles.unsqueeze(1)
        return times(angles.cos(), self.rope.magnitude), times(angles.sin(), self.rope.magnitude)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.chunk(2, dim=-1)

    @log_io("... t p, ... t _, ... t _ -> ... t p")
    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        if self.rotated == x.shape[-1]:
            return rotate(x, *angles, self.split)
        return torch.cat((rotate(x[..., : self.rotated], *angles, self.split), x[..., self.rotated :]), dim=-1)


class InterleavedRoPE(RoPE):
    """RoPE on neighbours: channel 2i is a pair with 2i + 1 (GPT-J's layout, and the paper's)."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., 0::2], x[..., 1::2]


ROTARY = {"half": RoPE, "interleaved": InterleavedRoPE}


# ---- frequencies, in radians per token, one for each pair of channels: (c,) -> (c,) ----


def inverse_wavelengths(dim: int, theta: float) -> Tensor:
    """theta^(-2i/dim) for each pair i, in radians per token. Shape: (dim/2,)."""
    return theta ** -(torch.arange(0, dim, 2).float() / dim)


def unscaled(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    return frequencies


def linear(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Positions divided by the factor. Chen et al. 2023, arXiv:2306.15595."""
    return frequencies / rope.factor


def ntk(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """A larger theta, which divides the lowest frequency by the factor, the highest by 1. arXiv:2309.00071, 3.1."""
    channels = 2 * len(frequencies)
    return inverse_wavelengths(channels, rope.theta * rope.factor ** (channels / max(1, channels - 2)))


def llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Divide low frequencies by the factor, leave high ones, and blend between. Llama 3.1, arXiv:2407.21783.

    Low and high are `low_freq_factor` and `high_freq_factor` turns over the original length.
    """
    turns = rope.original_len * frequencies / (2 * math.pi)
    kept = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / rope.factor)


def yarn(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Divide low frequencies by the factor, leave high ones, and blend over the channels between.

    Peng et al. 2023, arXiv:2309.00071, 3.2: beta_fast and beta_slow are turns over the original length.
    """
    def pair(turns: float) -> float:
        """The pair of channels that turns so often."""
        return len(frequencies) * math.log(rope.original_len / (turns * 2 * math.pi)) / math.log(rope.theta)

    first, last = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * len(frequencies) - 1)
    steps = torch.arange(len(frequencies), dtype=torch.float32) - first
    divided = (steps / (last - first or 0.001)).clamp(0, 1)
    return frequencies * (1 - divided + divided / rope.factor)


SCALINGS = {"none": unscaled, "linear": linear, "ntk": ntk, "llama3": llama3, "yarn": yarn}
