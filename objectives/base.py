"""The base class of objectives, and their results: losses for training, scores for evaluation."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from config import SampleConfig
from data import Batch
from generation.sampling import stream
from model import Model
from tools import LoggingModule


class Losses(NamedTuple):
    """The loss of a batch and its parts."""

    total: Tensor  # to differentiate; a scalar in nats per target
    parts: dict[str, Tensor]  # detached, by name: the objective's own, "z", "balance", ...; each a column of the log


class Scores(NamedTuple):
    """How well each target of a batch is predicted."""

    nats: Tensor  # (b, t) float32; 0 at a position without a target
    likeliest: Tensor  # (b, t, k) int64, the k likeliest tokens


class Objective(LoggingModule):
    """What the model learns. It holds the model; torch.compile wraps the objective.

    `own` is the part of the losses that is reported as training and validation loss.
    """

    own: str

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Losses:
        """The losses of a batch in training."""
        raise NotImplementedError

    def stream(
        self, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """Continue prompts, one token at a time: yields (row, token). See generation.sampling.stream."""
        return stream(self.model, prompts, cfg, eos_id=eos_id, num_ids=num_ids)

    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """How well each target of a batch is predicted."""
        raise NotImplementedError
