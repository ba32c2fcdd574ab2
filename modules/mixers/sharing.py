"""Attention whose layers share values, keys or a bias with one another, through what the stream carries."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from config import LayerConfig
from configuration.sharing import gives, takes
from modules.masks import Pattern
from modules.mixers.attention import Attention, options_of, with_cached
from modules.mixers.kv_cache import Keys, KVCache
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
    """Attention that mixes in the first layer's values, takes its bias, or gives what it has to later layers.

    `given` are the names of what the stream carries from here on.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, mix: nn.Module | None, given: Iterable[str], takes_bias: bool, **options: Any):
        super().__init__(dim, **options)
        self.mix, self.given, self.takes_bias = mix, frozenset(given), takes_bias
        self.in_blocks = not takes_bias and "bias" not in self.given

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "SharingAttention":
        options = sharing_options_of(cfg)
        if takes(cfg, "keys"):
            return BorrowingAttention(cfg.dim, **options | {"mix": None, "given": (), "own_kv": False})
        return cls(cfg.dim, **options)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: KVCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        q, keys, stream = self.find_keys(x, context, cache, stream)
        bias, stream = self.find_bias(context, keys[2], stream)
        bias_of = self.bias_in(context) if self.in_blocks else lambda *_: bias
        return self.join(self.look_at(q, keys, bias_of, context), x), stream

    def find_bias(self, context: Context, k_positions: Tensor, stream: Stream) -> tuple[Tensor | None, Stream]:
        """What layers share and add to the scores, (h, t, s) or (b, h, t, s); None = nothing."""
        if self.in_blocks:
            return None, stream
        if self.takes_bias:
            return stream.carried["bias"], stream
        bias = self.bias_in(context)(context.positions, k_positions)
        return bias, stream.carry(bias=bias)

    def find_keys(
        self, x: Tensor, context: Context, cache: KVCache | None, stream: Stream,
    ) -> tuple[Tensor, Keys, Stream]:
        """Queries (b, h, t, p), and what they look at."""
        q, k, v = self.read(x, context, cache)
        v = v if self.mix is None else self.mix(v, stream)
        keys = with_cached(k, v, context.positions, cache)
        offered = {"values": v, **dict(zip(names_of_keys(self.pattern), keys, strict=True))}
        return q, keys, stream.carry(**{name: x for name, x in offered.items() if name in self.given})


class BorrowingAttention(SharingAttention):
    """Attention to the keys and values of an earlier layer: it has neither projections for them nor a cache.

    Brandon et al. 2024, arXiv:2405.12981 (cross-layer attention). Shape: x (b, t, d) -> (b, t, d).
    """

    def make_cache(self, max_len: int) -> None:
        return None

    @log_io("b t d, ... t -> b h t p", name="queries")
    def queries_at(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.tempered(self.queries(self.q(x), self.turn_at(positions)), positions)

    def find_keys(self, x: Tensor, context: Context, cache: None, stream: Stream) -> tuple[Tensor, Keys, Stream]:
        keys = tuple(stream.carried[name] for name in names_of_keys(self.pattern))
        return self.queries_at(x, context.positions), keys, stream


def sharing_options_of(cfg: LayerConfig) -> dict[str, Any]:
    """What the flags of a layer say of a SharingAttention with keys of its own: its arguments besides the width."""
    given = names_of_keys(Pattern.of(cfg.attention)) if gives(cfg, "keys") else ()
    given += tuple(what for what in ("values", "bias") if gives(cfg, what))
    options = options_of(cfg) | {
        "mix": MixedValues(learned=cfg.attention.value_residual == "learned") if takes(cfg, "values") else None,
        "given": given, "takes_bias": takes(cfg, "bias")}
    return options | ({"distance_bias": None} if takes(cfg, "bias") else {})


def names_of_keys(pattern: Pattern) -> tuple[str, str, str]:
    """What the keys, values and positions of layers with a pattern are called in the stream."""
    return tuple(f"{what} of {pattern}" for what in ("keys", "values", "positions"))
