"""Two mixers side by side: the `beside` flag."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from config import LayerConfig
from modules.norm import times
from modules.residuals.wiring import way_to_call
from modules.stream import Carrying, Context, Stream
from tools import log_io

Scales = Sequence[float]  # constant factors on what a mixer reads and on what it gives


class PairCache(dict[str, Any]):
    """The cache of each mixer, by its word; None = it has none."""

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        for cache in filter(None, self.values()):
            cache.keep_rows(rows, padding=padding)


class SideBySide(Carrying, nn.ModuleDict):
    """o_1 f_1(i_1 x) + o_2 f_2(i_2 x): mixers by their words, which read the same, with constant factors i and o.

    Dong et al. 2024, arXiv:2411.13676 (Hymba); Zuo et al. 2025, arXiv:2507.22448 (Falcon-H1). The wiring normalises
    what they read, also for a mixer that normalises its input itself.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, mixers: Mapping[str, nn.Module], scales: Sequence[Scales]):
        super().__init__(mixers)
        self.scales = dict(zip(mixers, scales, strict=True))
        self.calls = {word: way_to_call(mixer) for word, mixer in mixers.items()}

    @classmethod
    def from_config(cls, cfg: LayerConfig, kinds: Mapping[str, Any]) -> "SideBySide":
        """`kinds` are the classes of both, by their words."""
        return cls({word: kind.from_config(cfg) for word, kind in kinds.items()}, (cfg.mixer_scales, cfg.beside_scales))

    def extra_repr(self) -> str:
        return ", ".join(f"{word} x {given:.3g} of x {read:.3g}" for word, (read, given) in self.scales.items()
                         if (read, given) != (1.0, 1.0))

    def make_cache(self, max_len: int) -> PairCache:
        return PairCache({word: mixer.make_cache(max_len) for word, mixer in self.items()})

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: PairCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        total = 0.0
        for word, (read, given) in self.scales.items():
            y, stream = self.calls[word](self[word], times(x, read), stream, context, cache and cache[word])
            total = total + times(y, given)
        return total, stream
