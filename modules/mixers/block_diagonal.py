"""Linear maps within groups of channels, for the gates of recurrent mixers."""

import torch
from einops import rearrange
from torch import Tensor, nn

from modules.norm import fill
from tools import LoggingModule, log_io


class BlockDiagonal(LoggingModule):
    """A linear map of the channels of each head to as many new ones of the same head.

    Muon takes its matrices as a batch. They are drawn with `std`; None = 1 / sqrt(inputs).
    Shape: (b, t, _) -> (b, t, _); weight (h, p, p), bias (_,), where h p = _.
    """

    roles = {"weight": "matrix"}

    def __init__(self, channels: int, *, num_heads: int, bias: bool = True, std: float | None = None):
        super().__init__()
        self.std = (channels // num_heads) ** -0.5 if std is None else std
        self.weight = nn.Parameter(torch.empty(num_heads, channels // num_heads, channels // num_heads))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def fan_in(self) -> dict[str, int]:
        return {"weight": self.weight.shape[2]}

    def extra_repr(self) -> str:
        return f"heads={len(self.weight)}, head_dim={self.weight.shape[1]}, bias={self.bias is not None}"

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)
        fill(self.bias, 0.0)

    @log_io("b t _ -> b t _")
    def forward(self, x: Tensor) -> Tensor:
        heads = rearrange(x, "b t (h p) -> h (b t) p", h=len(self.weight))
        y = rearrange(heads @ self.weight.mT, "h (b t) p -> b t (h p)", b=len(x))
        return y if self.bias is None else y + self.bias.type_as(y)
