"""Attention whose layers share values with one another, through what the stream carries."""

from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig
from configuration.sharing import gives, takes
from modules.mixers.attention import Attention, KVCache, options_of
from modules.norm import fill
from modules.precision import Float32Buffers, constants
from modules.stream import Carrying, Context, Stream
from tools import log_io


class MixedValues(Float32Buffers):
    """own v + first v_1, with the values v_1 of the first layer: a half of each, or as learned from there.

    Zhou et al. 2024, arXiv:2410.17897 (ResFormer). Shape: v (b, g, t, p) -> (b, g, t, p).
    """

    def __init__(self, *, learned: bool):
        super().__init__()
        self.own, self.first = (nn.Parameter(torch.empty(1)) if learned else constants(1) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.own, 0.5)
        fill(self.first, 0.5)

    @log_io("b g t p -> b g t p")
    def forward(self, v: Tensor, stream: Stream) -> Tensor:
        return (self.own * v + self.first * stream.carried["values"]).type_as(v)


class SharingAttention(Attention, Carrying):
    """Attention that takes from earlier layers, or gives to later ones: here the first layer's values.

    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, mix: nn.Module | None, gives_values: bool, **options: Any):
        super().__init__(dim, **options)
        self.mix, self.gives_values = mix, gives_values

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "SharingAttention":
        mix = MixedValues(learned=cfg.attention.value_residual == "learned") if takes(cfg, "values") else None
        return cls(cfg.dim, mix=mix, gives_values=gives(cfg, "values"), **options_of(cfg))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: KVCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        q, k, v = self.project(x, context.positions)
        v = v if self.mix is None else self.mix(v, stream)
        stream = stream.carry(values=v) if self.gives_values else stream
        return self.join(self.attend_to(q, k, v, context, cache), x), stream
