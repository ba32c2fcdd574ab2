"""Predict the next token."""

import torch

from data import Batch
from model import Hidden
from objectives.base import Losses, Predictor, Scores
from tools import log_io


class NextToken(Predictor):
    """Mean cross-entropy of the next token in nats. Without targets the loss is 0."""

    own = "next_token"

    @log_io
    def forward(self, batch: Batch) -> Losses:
        return self.losses(self.read(batch), batch.y)

    def read(self, batch: Batch) -> Hidden:
        """The hidden states of a batch, before the head."""
        return self.model.read(batch.x, documents=batch.documents)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        return self.scores(self.read(batch), batch.y, top_k)
