"""Measure how well a model predicts a part of a corpus."""

import math
from dataclasses import dataclass
from itertools import islice

import torch

from corpora.shards import TokenFile
from data import IGNORED, Batch, eval_batches
from generation.sampling import eval_mode
from objective import Objective
from tokenizer import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    loss: float  # nats per target
    bits_per_byte: float
    accuracy: float  # fraction of targets that were the likeliest token


@torch.no_grad()
def evaluate(
    objective: Objective, part: TokenFile, tokenizer: Tokenizer, batch_size: int, max_tokens: int | None = None, *,
    packing: str = "stream",
) -> Evaluation:
    """Measure an objective on a part of a corpus, or on its first `max_tokens` with padding, in rows as in training.

    Predicts every token once, except the first of each document (packing pad or documents) or of the part (stream).
    That is the begin-of-text token, which stands for no bytes, so all bytes of the text count.
    Changes neither the training data's order nor the random state.
    """
    model = objective.model
    device, byte_lengths = next(model.parameters()).device, torch.from_numpy(tokenizer.byte_lengths)
    seq_len = model.cfg.max_seq_len
    batches = eval_batches(part, batch_size, seq_len, packing)
    if max_tokens is not None:
        batches = islice(batches, max(1, max_tokens // (batch_size * seq_len)))
    nats, correct, count, num_bytes = 0.0, 0, 0, 0
    with eval_mode(objective):
        for batch in batches:
            count += batch.num_targets
            num_bytes += byte_lengths[batch.y[batch.y != IGNORED]].sum().item()
            more_nats, right = score_batch(objective, batch.to(device))
            nats, correct = nats + more_nats, correct + right
    return Evaluation(nats / count, nats / math.log(2) / num_bytes, correct / count)


def score_batch(objective: Objective, batch: Batch) -> tuple[float, int]:
    """The sum of nats over the targets of a batch, and the number of targets that were the likeliest token."""
    scores = objective.score(batch)
    return scores.nats.double().sum().item(), int((scores.likeliest[..., 0] == batch.y).sum())
