"""Static hyper-connections, as a new word of the `residual` flag. Zhu et al. 2024, arXiv:2409.19606."""

from functools import partial
from typing import Any

import torch
from einops import einsum, repeat
from torch import Tensor, nn

from config import LayerConfig, ModelConfig, flags
from modules.norm import norm_maker
from modules.stream import Context, Stream
from modules.wiring import PreNorm, Wiring
from tools import log_io


@flags
class HyperConfig:
    """The numbers of residual=hyper."""

    num_streams: int = 3


class HyperConnections(PreNorm):
    """n streams: the branch reads a mixture of them and writes to each; between, they are mixed.

    At first it equals PreNorm: every stream is the same, mixed by the identity.
    Shape: stream.x (b, t, n, d) -> (b, t, n, d).
    """

    def __init__(self, branch: nn.Module, make_norm, *, num_streams: int, **options):
        super().__init__(branch, make_norm, **options)
        self.read, self.write = (nn.Parameter(torch.empty(num_streams)) for _ in range(2))
        self.mix = nn.Parameter(torch.empty(num_streams, num_streams))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.read, 1 / len(self.read))
        nn.init.ones_(self.write)
        nn.init.eye_(self.mix)

    @classmethod
    def from_config(cls, cfg: LayerConfig, branch: nn.Module) -> Wiring:
        return cls(branch, partial(norm_maker(cfg), cfg.dim), num_streams=cfg.hyper.num_streams)

    @classmethod
    def begin(cls, x: Tensor, cfg: ModelConfig) -> Tensor:
        return repeat(x, "b t d -> b t n d", n=cfg.hyper.num_streams)

    @classmethod
    def end(cls, x: Tensor) -> Tensor:
        return x.mean(2)

    @log_io("b t n d -> b t n d")
    def forward(self, stream: Stream, context: Context, cache: Any = None) -> Stream:
        x = einsum(stream.x, self.read, "b t n d, n -> b t d")
        y, stream = self.call(self.branch, self.norm(x), stream, context, cache)
        mixed = einsum(stream.x, self.mix, "b t n d, n m -> b t m d")
        return stream.with_x(mixed + einsum(y, self.write, "b t d, n -> b t n d"))
