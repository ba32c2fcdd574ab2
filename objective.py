"""What a model learns: the `train.objective` flag.

An objective holds a model. `objective(batch)` returns its losses, `objective.score(batch)` the nats of each target, and
`objective.stream(prompts, cfg)` continues texts.
"""

from collections.abc import Callable

from config import TrainConfig
from data import Batch
from model import Model
from objectives.base import Losses, Objective, Scores
from objectives.block_diffusion import BlockDiffusion
from objectives.diffuseq import DiffuSeq
from objectives.fill_in_the_middle import FillInTheMiddle
from objectives.masked import MaskedTokens
from objectives.masked_diffusion import MaskedDiffusion
from objectives.multi_token import MultiToken
from objectives.next_token import NextToken
from objectives.prefix import Prefix
from objectives.seq2seq import Seq2Seq
from objectives.span_corruption import SpanCorruption
from tokenizer import Tokenizer

__all__ = ["OBJECTIVES", "BlockDiffusion", "DiffuSeq", "FillInTheMiddle", "Losses", "MaskedDiffusion", "MaskedTokens",
           "MultiToken", "NextToken", "Objective", "Prefix", "Scores", "Seq2Seq", "SpanCorruption", "as_objective",
           "batch_change", "make_objective"]

OBJECTIVES = {
    "next_token": NextToken, "multi_token": MultiToken, "prefix": Prefix, "fill_in_the_middle": FillInTheMiddle,
    "masked": MaskedTokens, "masked_diffusion": MaskedDiffusion, "block_diffusion": BlockDiffusion,
    "diffuseq": DiffuSeq, "seq2seq": Seq2Seq, "span_corruption": SpanCorruption,
}


def make_objective(model: Model, cfg: TrainConfig) -> Objective:
    """Make the objective that train.objective names."""
    return OBJECTIVES[cfg.objective].from_config(model, cfg)


def batch_change(cfg: TrainConfig, tokenizer: Tokenizer) -> Callable[[Batch], Batch] | None:
    """What train.objective does with batches beforehand: see Objective.batch_change."""
    return OBJECTIVES[cfg.objective].batch_change(cfg, tokenizer)


def as_objective(model: Model | Objective) -> Objective:
    """A model alone predicts next tokens. Raises ValueError if it sees them."""
    if isinstance(model, Objective):
        return model
    if not model.causal:
        raise ValueError("the model sees later tokens, so it does not predict the next one: give its objective, e.g. "
                         "inference.load_objective(run)")
    return NextToken(model)
