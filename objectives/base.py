"""What every objective gives: losses to train on, and nats to measure with."""

from typing import NamedTuple

from torch import Tensor

from data import Batch
from model import Model
from tools import LoggingModule


class Losses(NamedTuple):
    """The loss of a batch, and what it is made of."""

    total: Tensor  # what is differentiated, a scalar in nats per target
    parts: dict[str, Tensor]  # detached, by name: the objective's own, "z", "balance", ...; each a column of the log


class Scores(NamedTuple):
    """How well each target of a batch is predicted."""

    nats: Tensor  # (b, t) float32; 0 at a position without a target
    likeliest: Tensor  # (b, t, k) int64, the k likeliest tokens


class Objective(LoggingModule):
    """What is learned: it holds the model, and is what torch.compile wraps.

    `causal`: a position sees only those before it. `exact`: bits per byte are exact; otherwise they are an upper bound,
    and every report says so. `own` names the part of its losses that train and validation loss are made of.
    """

    causal: bool = True
    exact: bool = True
    own: str

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Losses:
        """The losses of a batch in training."""
        raise NotImplementedError

    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """How well each target of a batch is predicted."""
        raise NotImplementedError
