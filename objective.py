"""What a model learns: the `train.objective` flag.

An objective holds a model. `objective(batch)` returns its losses, `objective.score(batch)` the nats of each target, and
`objective.stream(prompts, cfg)` continues texts.
"""

from config import TrainConfig
from model import Model
from objectives.base import Losses, Objective, Scores
from objectives.diffuseq import DiffuSeq
from objectives.masked_diffusion import MaskedDiffusion
from objectives.next_token import NextToken

__all__ = ["DiffuSeq", "OBJECTIVES", "Losses", "MaskedDiffusion", "NextToken", "Objective", "Scores", "as_objective",
           "make_objective"]

OBJECTIVES = {"diffuseq": DiffuSeq, "masked_diffusion": MaskedDiffusion, "next_token": NextToken}


def make_objective(model: Model, cfg: TrainConfig) -> Objective:
    """Make the objective that train.objective names."""
    return OBJECTIVES[cfg.objective].from_config(model, cfg)


def as_objective(model: Model | Objective) -> Objective:
    """A model alone predicts next tokens. Raises ValueError if it sees them."""
    if isinstance(model, Objective):
        return model
    if not model.causal:
        raise ValueError("the model sees later tokens, so it does not predict the next one: give its objective, e.g. "
                         "inference.load_objective(run)")
    return NextToken(model)
