"""A norm over all tokens of a text so far, which keeps their statistics while it generates."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from modules.masks import positions_within
from modules.mixers.recurrent import State, held, hold
from modules.norm import fill
from modules.precision import widen
from modules.short_conv import without_padding
from modules.stream import Context
from tools import LoggingModule, log_io


class TimestepNorm(LoggingModule):
    """Subtract the mean and divide by the standard deviation of a group of channels in all tokens up to this one.

    Ma et al. 2024, arXiv:2404.08801 (Megalodon), section 3.2. Padding does not count, and gives zeros.
    Shape: (b, t, d) -> (b, t, d). Sums over time in float64, where the device has it: the variance is a difference of
    large numbers. The result has the dtype of x.
    """

    def __init__(self, dim: int, *, num_groups: int, eps: float):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.scale, self.bias = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"groups={self.num_groups}, eps={self.eps}"

    def reset_parameters(self) -> None:
        fill(self.scale, 1.0)
        fill(self.bias, 0.0)

    def make_cache(self, max_len: int) -> State:
        return State()

    def statistics(self, x: Tensor, context: Context, cache: State | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group in the tokens so far. Shape: (b, t, g w) -> (b, t, g), twice."""
        groups = rearrange(x, "b t (g w) -> b t g w", g=self.num_groups)
        own = groups.mean(-1)
        spread = (groups - own.unsqueeze(-1)).square().mean(-1)
        own, spread = (own, spread) if x.device.type == "mps" else (own.double(), spread.double())
        sums = torch.stack((torch.ones_like(own), own, spread + own.square()))  # (3, b, t, g)
        sums = without_padding(sums, context.positions)
        total = sums.cumsum(2)
        if context.documents is not None:
            ids = context.documents.ids
            start = torch.arange(ids.shape[1], device=ids.device) - positions_within(ids)  # of the document
            before = (total - sums).gather(2, repeat(start, "b t -> three b t g", three=3, g=self.num_groups))
            total = total - before
        earlier = held(cache, "sums")
        total = total if earlier is None else total + rearrange(earlier, "b three g -> three b 1 g")
        hold(cache, sums=rearrange(total[:, :, -1], "three b g -> b three g"))
        count, mean, square = total
        count = count.clamp(min=1)
        mean = mean / count
        return mean, (square / count - mean.square()).clamp(min=0)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        wide = widen(x)
        mean, variance = (part.to(wide.dtype).unsqueeze(-1) for part in self.statistics(wide, context, cache))
        groups = rearrange(wide, "b t (g w) -> b t g w", g=self.num_groups)
        y = rearrange((groups - mean) * (variance + self.eps).rsqrt(), "b t g w -> b t (g w)")
        return without_padding(y * self.scale + self.bias, context.positions).type_as(x)
