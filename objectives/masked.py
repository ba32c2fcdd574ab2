"""Masked language modeling: predict a fixed share of the tokens from the others."""

import torch
from torch import Tensor

from config import TrainConfig
from data import Batch
from model import Model
from objectives.base import Losses, Scores
from objectives.masking import MaskPredictor
from objectives.noise import ranks, uniform
from objectives.rows import Row
from tools import log_io


class MaskedTokens(MaskPredictor):
    """BERT's masked language model: mean cross-entropy of chosen tokens in nats. Devlin et al. 2018, arXiv:1810.04805.

    Each token is chosen with probability `rate`. Of the chosen ones the shares `random` and `keep` are shown as a
    random token and as they are, the others as the mask. A score is of as many tokens of each row as `rate` says, at
    least one, all of them masked; which ones follows from the row's tokens.
    """

    own = "masked"

    def __init__(self, model: Model, *, rate: float = 0.15, random: float = 0.1, keep: float = 0.1, **options):
        super().__init__(model, **options)
        self.rate, self.random, self.keep = rate, random, keep

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "MaskedTokens":
        own = cfg.masked
        return cls(model, rate=own.rate, random=own.random, keep=own.keep, loss_chunk=cfg.loss_chunk,
                   log_accuracy=cfg.log_accuracy)

    @log_io
    def forward(self, batch: Batch) -> Losses:
        row = Row.of(batch)
        chosen = (uniform(row.keys, row.tokens.shape[1:]) < self.rate) & row.is_target
        return self.losses(*self.read(row, self.shown(row, chosen), chosen))

    def shown(self, row: Row, chosen: Tensor) -> Tensor:
        """What the model reads. Shape: (b, t) -> (b, t)."""
        fate, other = (uniform(row.keys, row.tokens.shape[1:], draw=draw) for draw in (1, 2))
        replaced = torch.where(fate < self.random, (other * self.mask_id).long(), self.mask_id)
        return replaced.where(chosen & (fate < 1 - self.keep), row.tokens)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        row = Row.of(batch._replace(keys=None))
        number = (row.is_target.sum(-1, keepdim=True) * self.rate).round().clamp(min=1)
        chosen = (ranks(row.keys, row.is_target) < number) & row.is_target
        return self.scores(*self.read(row, row.tokens.masked_fill(chosen, self.mask_id), chosen), top_k)
