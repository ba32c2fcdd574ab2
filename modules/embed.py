"""From token ids to the residual stream."""

from typing import Any

from torch import Tensor, nn

from config import ModelConfig
from modules.norm import norm_maker
from modules.position import EMBEDDED, LearnedPosition, SinusoidalPosition
from tools import LoggingModule, log_io


class Embed(LoggingModule):
    """A learned vector for each token, scaled, plus its position if `position` is learned or sinusoidal.

    Shape: tokens (b, t) int64, positions (t,) or (b, t) -> (b, t, d).
    """

    def __init__(
        self, vocab_size: int, *, dim: int, scale: float = 1.0, position: nn.Module | None = None,
        norm: nn.Module | None = None, dropout: float = 0.0,
    ):
        super().__init__()
        self.scale = scale
        self.tokens = nn.Embedding(vocab_size, dim)
        self.position = position
        self.norm = nn.Identity() if norm is None else norm
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "Embed":
        return cls(cfg.padded_vocab_size, **cls.options_of(cfg))

    @classmethod
    def options_of(cls, cfg: ModelConfig) -> dict[str, Any]:
        position = None
        if cfg.position == "learned":
            position = LearnedPosition(cfg.dim, max_seq_len=cfg.max_seq_len)
        elif cfg.position in EMBEDDED:
            position = SinusoidalPosition(cfg.dim, cfg.sinusoidal)
        return {"dim": cfg.dim, "position": position, "dropout": cfg.embed_dropout, "scale": cfg.embed_factor,
                "norm": norm_maker(cfg)(cfg.dim) if cfg.embed_norm else None}

    @log_io("b t, ... t -> b t d")
    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if self.position is not None:
            x = self.position(x, positions)
        return self.dropout(self.norm(x))
