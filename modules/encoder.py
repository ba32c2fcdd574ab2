"""The layers that read a source, for a decoder with cross-attention: the `encoder_layers` flag."""

from collections.abc import Callable

from torch import Tensor, nn

from config import ModelConfig
from modules.block import make_blocks
from modules.norm import norm_maker
from modules.residuals import RESIDUALS
from modules.stacks import STACKS, go_through
from modules.stream import Context, Stream
from tools import LoggingModule, log_io


class Encoder(LoggingModule):
    """Blocks and a norm of their own, over the embedding of a source. Vaswani et al. 2017, arXiv:1706.03762, 3.1.

    `run` calls a block with its arguments, e.g. without keeping its activations; `cfg` is ModelConfig.encoder.
    Shape: x (b, t, d) -> (b, t, d), and the auxiliary losses of the blocks; t here is s of the decoder.
    """

    def __init__(self, cfg: ModelConfig, *, run: Callable):
        super().__init__()
        self.cfg, self.run, self.wiring = cfg, run, RESIDUALS[cfg.residual]
        self.exit = self.wiring.make_exit(cfg)
        self.stack = STACKS[cfg.stack] and STACKS[cfg.stack].from_config(cfg)
        self.blocks = make_blocks(cfg)
        self.norm = norm_maker(cfg)(cfg.dim) if cfg.final_norm else nn.Identity()

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        def run(layer: int, stream: Stream) -> Stream:
            return self.run(self.blocks[layer], stream, context, None)

        stream = Stream(self.wiring.begin(x, self.cfg))
        stream = go_through(self.stack, len(self.blocks), stream, run)
        x = self.norm(stream.x if self.exit is None else self.exit(stream))
        return x, stream.losses
