"""Short causal convolutions before a branch, or within its MLP (Canon layers): the `canon` flag."""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from modules.mlps.dense import MLP
from modules.residuals.wiring import way_to_call
from modules.stream import Carrying, Context, Stream
from tools import LoggingModule, log_io


class ConvCache:
    """The last inputs of a convolution, (b, reach, d); None = no token yet."""

    def __init__(self):
        self.inputs: Tensor | None = None

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        if self.inputs is not None:
            self.inputs = self.inputs[rows]


class ShortConv(LoggingModule):
    """x_t + sum over i < length of w_i * x_{t - i}, with weights w of each channel: a causal depthwise convolution.

    Allen-Zhu 2025, Physics of Language Models 4.1 (Canon layers). Nothing passes from padding or from another document.
    With a `dilation`, x_{t - i dilation} in place of x_{t - i}.
    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, length: int, dilation: int = 1, bias: bool = False):
        super().__init__()
        self.length, self.dilation, self.weight = length, dilation, nn.Parameter(torch.empty(length, dim))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None
        self.reach = (length - 1) * dilation  # tokens before its own
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"length={self.length}" + (f", dilation={self.dilation}" if self.dilation > 1 else "")

    def reset_parameters(self) -> None:
        for drawn in self.parameters():
            nn.init.uniform_(drawn, -self.length**-0.5, self.length**-0.5)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        x = without_padding(x, context.positions)
        return x + self.mix(x, context, cache)

    def mix(self, x: Tensor, context: Context, cache: ConvCache | None) -> Tensor:
        """The convolution alone. Shape: (b, t, d) -> (b, t, d)."""
        seen = with_earlier(without_padding(x, context.positions), cache, reach=self.reach)
        y = self.over(seen) if context.documents is None else self.within(seen, context.documents.ids)
        return y if self.bias is None else y + self.bias.type_as(y)

    def over(self, seen: Tensor) -> Tensor:
        """The convolution. Shape: (b, reach + t, d) -> (b, t, d)."""
        kernels = rearrange(self.weight.flip(0), "i d -> d 1 i").type_as(seen)
        y = nn.functional.conv1d(rearrange(seen, "b t d -> b d t"), kernels, groups=seen.shape[-1],
                                 dilation=self.dilation)
        return rearrange(y, "b d t -> b t d")

    def within(self, seen: Tensor, ids: Tensor) -> Tensor:
        """The convolution over tokens of the same document. Shape: (b, reach + t, d), (b, t) -> (b, t, d)."""
        t, ids = ids.shape[1], nn.functional.pad(ids, (self.reach, 0), value=-1)
        y = 0.0
        for back in range(self.length):
            start = self.reach - back * self.dilation
            same = ids[:, start:start + t] == ids[:, self.reach:]
            y = y + self.weight[back].type_as(seen) * seen[:, start:start + t].where(same.unsqueeze(-1), 0.0)
        return y


def with_earlier(x: Tensor, cache: ConvCache | None, *, reach: int, absent: float = 0) -> Tensor:
    """The input after the last ones of the cache, or at first after `absent`.

    Shape: (b, t, ...) -> (b, reach + t, ...).
    """
    begins = cache is None or cache.inputs is None
    earlier = x.new_full((x.shape[0], reach, *x.shape[2:]), absent) if begins else cache.inputs
    seen = torch.cat((earlier, x), dim=1)
    if cache is not None:
        cache.inputs = seen[:, seen.shape[1] - reach:].clone()  # a view would keep the whole prompt
    return seen


def without_padding(x: Tensor, positions: Tensor) -> Tensor:
    """Zeros at the padding of shorter texts, whose positions (b, t) are negative."""
    return x if positions.dim() == 1 else x.where(positions.unsqueeze(-1) >= 0, 0.0)


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
        self.own_norm = getattr(part, "own_norm", False)

    def make_cache(self, max_len: int) -> BranchCache:
        return BranchCache(ConvCache(), self.part.make_cache(max_len) if hasattr(self.part, "make_cache") else None)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: BranchCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        conv, own = (None, None) if cache is None else cache
        return self.call(self.part, self.conv(x, context, conv), stream, context, own)


class ConvolvedHidden(LoggingModule):
    """An MLP with a short convolution of what its first matrices give, before the nonlinearity (Canon D).

    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, mlp: MLP, hidden_dim: int, *, length: int):
        super().__init__()
        self.mlp, self.conv = mlp, ShortConv(len(mlp.maps) * hidden_dim, length=length)

    def make_cache(self, max_len: int) -> ConvCache:
        return ConvCache()

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        parts = self.conv(torch.cat(self.mlp.read(x), dim=-1), context, cache).chunk(len(self.mlp.maps), dim=-1)
        return self.mlp.leave(self.mlp.combine(*parts))
