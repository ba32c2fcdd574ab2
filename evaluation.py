"""How well a model predicts a part of a corpus."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from data import IGNORED, TokenFile, eval_batches
from model import Model
from tokenizer import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    loss: float  # nats per token
    bits_per_byte: float
    accuracy: float  # share of tokens that were the likeliest


@torch.no_grad()
def evaluate(
    model: Model, part: TokenFile, tokenizer: Tokenizer, batch_size: int, max_tokens: int | None = None,
) -> Evaluation:
    """Measure the model on a part, or on its first `max_tokens`; moves neither data nor random state."""
    device, byte_lengths = next(model.parameters()).device, torch.from_numpy(tokenizer.byte_lengths)
    seq_len = model.cfg.max_seq_len
    batches = eval_batches(part, batch_size, seq_len)
    if max_tokens is not None:
        batches = islice(batches, max(1, max_tokens // (batch_size * seq_len)))
    nats, correct, count, num_bytes = 0.0, 0, 0, 0
    was_training = model.training
    model.eval()
    for x, targets in batches:
        hidden = model.read(x.to(device))
        for part, y in hidden.parts(targets.to(device), model.loss_chunk):
            logits = model.predict(part)
            nats += nn.functional.cross_entropy(
                logits.flatten(0, 1), y.flatten(), ignore_index=IGNORED, reduction="sum").item()
            correct += (logits.argmax(-1) == y).sum().item()
        counted = targets[targets != IGNORED]
        count, num_bytes = count + len(counted), num_bytes + byte_lengths[counted].sum().item()
    model.train(was_training)
    return Evaluation(nats / count, nats / math.log(2) / num_bytes, correct / count)
