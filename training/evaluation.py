"""Measure how well a model predicts a part of a corpus."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from configuration.heap import return_freed
from corpora.probe_rows import ProbeRows
from corpora.shards import TokenFile
from data import Batch, eval_batches
from generation.sampling import eval_mode
from modules.across import is_sharded
from objective import Objective, Scores
from tokenizer import Tokenizer
from training.group import ALONE, Group


@dataclass(frozen=True)
class Evaluation:
    """A model on a part of a text. Errors are standard errors over its rows, as if drawn apart; None = of one row."""

    loss: float  # nats per target
    bits_per_byte: float
    accuracy: float  # fraction of targets that were the likeliest token
    loss_error: float | None = None
    bits_per_byte_error: float | None = None


@torch.no_grad()
def evaluate(
    objective: Objective, part: TokenFile | ProbeRows, tokenizer: Tokenizer, batch_size: int,
    max_tokens: int | None = None, *, packing: str = "stream", seq_len: int | None = None,
    score: Callable[[Batch], Scores] | None = None, change: Callable[[Batch], Batch] | None = None,
    group: Group = ALONE,
) -> Evaluation:
    """Measure an objective on a part of a corpus, on at most `max_tokens`, spread evenly.

    In rows of `seq_len` tokens; None = as in training. `score` is the objective's measure; None = Objective.score.
    `change` is done with each batch beforehand. The processes of a `group` take the batches in turns.

    Predicts every token once, except the first of each document (packing pad or documents) or of the part (stream).
    That is the begin-of-text token, which stands for no bytes, so all bytes of the text count; of an objective that
    predicts a part of the tokens, the bytes of these.
    Changes neither the training data's order nor the random state.
    """
    byte_lengths = torch.from_numpy(tokenizer.byte_lengths)
    device, found = next(objective.model.parameters()).device, []
    gathers_on_cpu = device.type == "cpu" and is_sharded(next(objective.model.parameters()))
    with eval_mode(objective):
        length = seq_len or objective.row_len
        batches = eval_batches(part, batch_size, length, packing, max_tokens=max_tokens)
        for batch, counts in group.own_batches(batches):
            batch = batch if change is None else change(batch)
            rows = sums_of_rows(score or objective.score, batch, byte_lengths, device)
            if counts:
                found.append(rows)
            if gathers_on_cpu:
                return_freed()  # blocks of whole weights leave gaps: without this a process grows by 300 MB a second
    in_turns = zip_longest(*group.gather(found))
    found = [rows for turn in in_turns for rows in turn if rows is not None]
    nats, right, targets, num_bytes = np.concatenate(found, axis=-1)
    loss, loss_error = ratio(nats, targets)
    bits, bits_error = ratio(nats / math.log(2), num_bytes)
    return Evaluation(loss, bits, ratio(right, targets)[0], loss_error, bits_error)


def sums_of_rows(
    score: Callable[[Batch], Scores], batch: Batch, byte_lengths: Tensor, device: torch.device,
) -> np.ndarray:
    """The nats, the right ones, the number and the bytes of the targets of each row that has any. Shape: (4, rows)."""
    nats, right, counted = score_batch(score, batch.to(device))
    num_bytes = torch.where(counted, byte_lengths[batch.y.clamp(min=0)], 0)
    rows = torch.stack([nats, right, counted.sum(-1), num_bytes.sum(-1)])
    return rows[:, counted.any(-1)].numpy()  # the last batch may have empty rows


def score_batch(score: Callable[[Batch], Scores], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The nats of the targets of each row, how many were the likeliest token, and which count.

    Shape: -> (b,), (b,), (b, t), on the CPU.
    """
    scores = score(batch)
    return scores.nats.cpu().double().sum(-1), scores.right[..., 0].cpu().double().sum(-1), scores.counted.cpu()


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float | None]:
    """sum(above) / sum(below), and its standard error over the rows; None = there is one row. Shape: twice (rows,).

    Nan if sum(below) is 0, as of texts of which only ends are predicted. Cochran 1977, Sampling Techniques, chapter 6.
    """
    if not math.fsum(below):
        return math.nan, None
    value, rows = math.fsum(above) / math.fsum(below), len(above)
    if rows == 1:
        return value, None
    return value, math.sqrt(rows / (rows - 1) * math.fsum((above - value * below) ** 2)) / math.fsum(below)
