"""Attention whose values are mixed with the first layer's, as a new word of the `mixer` flag. arXiv:2410.17897."""

import torch
from torch import Tensor, nn

from modules.mixers.attention import Attention, KVCache
from modules.stream import Carrying, Context, Stream
from tools import log_io


class ValueResidual(Attention, Carrying):
    """v = a v + (1 - a) v of the first layer, with a learned a that starts at a half."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.share = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.share, 0.5)

    @log_io("b t d -> b t d")
    def forward(
        self, x: Tensor, context: Context, cache: KVCache | None, stream: Stream,
    ) -> tuple[Tensor, Stream]:
        q, k, v = self.project(x, context.positions)
        if "values" in stream.carried:
            v = self.share * v + (1 - self.share) * stream.carried["values"]
        else:
            stream = stream.carry(values=v)
        return self.join(self.attend_to(q, k, v, context, cache), x), stream
