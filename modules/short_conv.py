"""Short causal convolutions before a branch (Canon layers): the `canon` flag."""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from modules.stream import Carrying, Context, Stream
from modules.wiring import way_to_call
from tools import LoggingModule, log_io


class ConvCache:
    """The last inputs of a convolution, (b, length - 1, d); None = no token yet."""

    def __init__(self):
        self.inputs: Tensor | None = None

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        if self.inputs is not None:
            self.inputs = self.inputs[rows]


class ShortConv(LoggingModule):
    """x_t + sum over i < length of w_i * x_{t - i}, with weights w of each channel: a causal depthwise convolution.

    Allen-Zhu 2025, Physics of Language Models 4.1 (Canon layers). Nothing passes from padding or from another document.
    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, length: int):
        super().__init__()
        self.length, self.weight = length, nn.Parameter(torch.empty(length, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -self.length**-0.5, self.length**-0.5)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        if context.positions.dim() == 2:
            x = x.where(context.positions.unsqueeze(-1) >= 0, 0.0)
        before = None if cache is None else cache.inputs
        before = x.new_zeros(len(x), self.length - 1, x.shape[-1]) if before is None else before
        seen = torch.cat((before, x), dim=1)  # (b, length - 1 + t, d)
        if cache is not None:
            cache.inputs = seen[:, seen.shape[1] - self.length + 1:]
        if context.documents is not None:
            return x + self.within(seen, context.documents.ids)
        y = nn.functional.conv1d(rearrange(seen, "b t d -> b d t"), self.weight.type_as(x).flip(0).mT.unsqueeze(1),
                                 groups=x.shape[-1])
        return x + rearrange(y, "b d t -> b t d")

    def within(self, seen: Tensor, ids: Tensor) -> Tensor:
        """The convolution over tokens of the same document. Shape: (b, length - 1 + t, d), (b, t) -> (b, t, d)."""
        t, ids = ids.shape[1], nn.functional.pad(ids, (self.length - 1, 0), value=-1)
        y = 0.0
        for back in range(self.length):
            start = self.length - 1 - back
            same = ids[:, start:start + t] == ids[:, self.length - 1:]
            y = y + self.weight[back].type_as(seen) * seen[:, start:start + t].where(same.unsqueeze(-1), 0.0)
        return y


class BranchCache(NamedTuple):
    """The caches of a convolution and of the part behind it; None = it has none."""

    conv: ConvCache
    part: Any

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        for cache in filter(None, self):
            cache.keep_rows(rows, padding=padding)


class Convolved(Carrying):
    """A part behind a short convolution of its input. Shape: x (b, t, d) -> (b, t, d)."""

    def __init__(self, part: nn.Module, conv: ShortConv):
        super().__init__()
        self.part, self.conv, self.call = part, conv, way_to_call(part)

    def make_cache(self, max_len: int) -> BranchCache:
        return BranchCache(ConvCache(), self.part.make_cache(max_len) if hasattr(self.part, "make_cache") else None)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: BranchCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        conv, own = (None, None) if cache is None else cache
        return self.call(self.part, self.conv(x, context, conv), stream, context, own)
