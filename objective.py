"""What a model learns: the `train.objective` flag.

An objective holds a model. `objective(batch)` returns its losses, `objective.score(batch)` the nats of each target.
"""

from config import TrainConfig
from model import Model
from objectives.base import Losses, Objective, Scores
from objectives.next_token import NextToken

__all__ = ["OBJECTIVES", "Losses", "NextToken", "Objective", "Scores", "make_objective"]

OBJECTIVES = {"next_token": NextToken}


def make_objective(model: Model, cfg: TrainConfig) -> Objective:
    """Make the objective that train.objective names."""
    return OBJECTIVES[cfg.objective](model, loss_chunk=cfg.loss_chunk, log_accuracy=cfg.log_accuracy)
