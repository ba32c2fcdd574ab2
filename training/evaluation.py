"""How well a model predicts a part of a corpus."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from data import IGNORED, Batch, TokenFile, eval_batches
from generation.sampling import eval_mode
from model import Model
from tokenizer import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    loss: float  # nats per token
    bits_per_byte: float
    accuracy: float  # share of tokens that were the likeliest


@torch.no_grad()
def evaluate(
    model: Model, part: TokenFile, tokenizer: Tokenizer, batch_size: int, max_tokens: int | None = None, *,
    packing: str = "stream",
) -> Evaluation:
    """Measure the model on a part, or on its first `max_tokens`, padding included; in rows as in training.

    Every token is predicted once, but for the first of each document (packing pad or documents) or of the part
    (stream): that is the begin-of-text token, which stands for no byte. So all bytes of the text count.
    Moves neither data nor random state.
    """
    device, byte_lengths = next(model.parameters()).device, torch.from_numpy(tokenizer.byte_lengths)
    seq_len = model.cfg.max_seq_len
    batches = eval_batches(part, batch_size, seq_len, packing)
    if max_tokens is not None:
        batches = islice(batches, max(1, max_tokens // (batch_size * seq_len)))
    nats, correct, count, num_bytes = 0.0, 0, 0, 0
    with eval_mode(model):
        for batch in batches:
            count += batch.num_targets
            num_bytes += byte_lengths[batch.y[batch.y != IGNORED]].sum().item()
            seen, right = predict_batch(model, batch.to(device))
            nats, correct = nats + seen, correct + right
    return Evaluation(nats / count, nats / math.log(2) / num_bytes, correct / count)


@torch.no_grad()
def predict_batch(model: Model, batch: Batch) -> tuple[float, int]:
    """Nats over all targets of a batch, and how many of them were the likeliest."""
    nats, correct = 0.0, 0
    hidden = model.read(batch.x, documents=batch.documents)
    for shown, y in hidden.parts(batch.y, model.loss_chunk):
        logits = model.predict(shown)
        nats += nn.functional.cross_entropy(
            logits.flatten(0, 1), y.flatten(), ignore_index=IGNORED, reduction="sum").item()
        correct += (logits.argmax(-1) == y).sum().item()
    return nats, correct
