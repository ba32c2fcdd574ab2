"""An encoder and a decoder that reads it: a new branch of a block, and an objective that holds the encoder."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig, override
from data import Batch
from model import Hidden, Model
from modules.attend import SDPA
from modules.masks import Mask
from modules.stream import Context
from objective import NextToken
from tools import LoggingModule, log_io


class CrossAttention(LoggingModule):
    """Each position looks at all of `context.source`. Shape: x (b, t, d), source (b, s, d) -> (b, t, d)."""

    def __init__(self, dim: int, *, num_heads: int):
        super().__init__()
        self.num_heads, self.attend = num_heads, SDPA(scale=(dim // num_heads) ** -0.5)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "CrossAttention":
        return cls(cfg.dim, num_heads=cfg.attention.num_heads)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache=None) -> Tensor:
        q, k, v = (rearrange(linear(z), "b t (h p) -> b h t p", h=self.num_heads)
                   for linear, z in ((self.q, x), (self.k, context.source), (self.v, context.source)))
        y = self.attend(q, k, v, Mask(causal=False, allowed=None), None)
        return self.out(rearrange(y, "b h t p -> b t (h p)"))


class Translate(NextToken):
    """The decoder's next token, given what the encoder makes of the same rows read backwards."""

    def __init__(self, model: Model, *, loss_chunk: int | None = None):
        super().__init__(model, loss_chunk=loss_chunk)
        model.encoder = Model(override(model.cfg, {"cross": "none"}), causal=False)

    def stream(self, prompts, cfg, *, eos_id, num_ids=None):
        tokens = torch.tensor(prompts)
        with torch.no_grad():
            source = self.model.encoder.read(tokens.flip(1)).last
            for _ in range(cfg.max_new_tokens):
                new = self.model(tokens, source=source, last_only=True).argmax(-1)
                tokens = torch.cat((tokens, new), dim=1)
                yield from enumerate(new[:, 0])

    def read(self, batch: Batch) -> Hidden:
        return self.model.read(batch.x, source=self.model.encoder.read(batch.x.flip(1)).last)
