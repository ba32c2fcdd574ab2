"""The token before: shifted into a branch (`token_shift`) or into the embedding (`smear`)."""

import torch
from torch import Tensor, nn

from modules.linear import Linear
from modules.precision import widen
from modules.short_conv import ConvCache, with_earlier, without_padding
from modules.stream import Context
from tools import LoggingModule, log_io


def previous(x: Tensor, context: Context, cache: ConvCache | None) -> Tensor:
    """The vector of the token before, and zeros before a text. Shape: (b, t, d) -> (b, t, d)."""
    x = without_padding(x, context.positions)
    before = with_earlier(x, cache, reach=1)[:, :-1]
    if context.documents is None:
        return before
    begins = context.documents.positions() == 0
    return before.masked_fill(begins.unsqueeze(-1), 0.0)


class TokenShift(LoggingModule):
    """x_t + share (x_{t - 1} - x_t), with a learned share of each channel.

    Peng et al. 2023, arXiv:2305.13048 (RWKV). At first the share falls from the first channel to the last, and from
    layer to layer: 1 - (i / d)^((1 - l / num_layers)^power).
    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, depth: float, power: float = 1.0):
        super().__init__()
        self.depth, self.power, self.share = depth, power, nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            channels = torch.arange(len(self.share), dtype=torch.float32) / len(self.share)
            self.share.copy_(1 - channels ** (1 - self.depth) ** self.power)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        return x + self.share.type_as(x) * (previous(x, context, cache) - x)


class Smear(LoggingModule):
    """x_t + lambda sigmoid(w . x_t) x_{t - 1} on the embedding; lambda is 0 at first, and w reads the first channels.

    Karpathy 2025 (nanochat); Jordan et al. 2024 (modded-nanogpt). `dim` is the number of these channels.
    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gate, self.scale = Linear(dim, 1, bias=False), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.scale)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        gate = widen(self.gate(x[..., :self.gate.in_features])).sigmoid()
        return x + (self.scale * gate).type_as(x) * previous(x, context, cache)
