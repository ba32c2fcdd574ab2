"""Encoded text -> batches of ids (b, t)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from shards import TokenFile

IGNORED = -100  # the target of a position without one, as in torch's cross_entropy


def row_starts(
    document_starts: np.ndarray, num_tokens: int, *, seq_len: int, reach: int
) -> np.ndarray:
    """First positions of rows, so that a row begins with a document wherever it can.

    The next row begins at the last document that starts within `reach` tokens, and inside the
    document, `seq_len` tokens on, where there is none: that document is longer than a row.
    Shape: (num_documents,) -> (rows,), int64.
    """
    bounds = np.append(document_starts, num_tokens)
    further_rows = np.maximum(0, -(-(np.diff(bounds) - reach) // seq_len))  # begin inside
    ends = bounds[:-1] + further_rows * seq_len + reach
    following = (np.searchsorted(bounds, ends, side="right") - 1).tolist()
    chain, document = [], 0
    while document < len(following):
        chain.append(document)
        document = following[document]
    counts = further_rows[chain] + 1
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(bounds[chain], counts) + within * seq_len


class Batches:
    """Training batches: `batches[step]` is (x, y), both int64 (b, t); y is x one token later.

    A pure function of the seed and the step, so the number of batches taken is the whole position
    to save, and going on from it is exact. A row begins with a document, and the next row with the
    one that was cut, so a document is seen from its start; one longer than a row goes on over
    several. Each epoch takes all rows in a fresh order; a text that is one document also cut at a
    fresh offset. The stream is a ring: the first document follows the last.
    ValueError where the part is shorter than a row.
    """

    def __init__(
        self, token_file: TokenFile, *, batch_size: int, seq_len: int, seed: int = 0,
        shuffle: bool = True, rank: int = 0, world_size: int = 1,
    ):
        num_tokens = token_file.num_tokens
        if num_tokens <= seq_len:
            raise ValueError(f"model.max_seq_len={seq_len} is longer than the text ({num_tokens} tokens): "
                             f"use {num_tokens - 1} or less, or more text")
        if seed < 0:
            raise ValueError(f"train.seed={seed} is negative: use 0 or more")
        self.token_file, self.batch_size, self.seq_len = token_file, batch_size, seq_len
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        starts = token_file.document_starts
        self._starts = row_starts(starts, num_tokens, seq_len=seq_len, reach=seq_len + 1)
        self._single = len(starts) == 1
        self._cached = (-1, self._starts)
        self.rows_per_epoch = len(self._starts)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if step < 0:
            raise IndexError(f"step={step} is negative: the first batch is 0")
        first = (step * self.world_size + self.rank) * self.batch_size
        rows = range(first, first + self.batch_size)
        starts = np.array([self._epoch(row // self.rows_per_epoch)[row % self.rows_per_epoch]
                           for row in rows])
        positions = (starts[:, None] + np.arange(self.seq_len + 1)) % self.token_file.num_tokens
        tokens = torch.from_numpy(self.token_file.tokens[positions].astype(np.int64))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _epoch(self, epoch: int) -> np.ndarray:
        """Row starts of an epoch, in its order."""
        if self.shuffle and self._cached[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            offset = random.integers(self.seq_len) if self._single else 0
            self._cached = (epoch, random.permutation(self._starts) + offset)
        return self._cached[1]


def eval_batches(
    token_file: TokenFile, batch_size: int, seq_len: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, y) int64 (b, t) with every token of the part once as a target, but for the very first.

    Documents stay whole where they fit into a row. Elsewhere x is pad and y is -100, so that all
    batches have one shape.
    """
    last = token_file.num_tokens - 1  # a target only
    starts = row_starts(token_file.document_starts, last, seq_len=seq_len, reach=seq_len)
    stops = np.append(starts[1:], last)
    for first in range(0, len(starts), batch_size):
        rows = slice(first, first + batch_size)
        positions = starts[rows, None] + np.arange(seq_len)
        row, column = np.nonzero(positions < stops[rows, None])
        x = np.full((batch_size, seq_len), token_file.pad_id, np.int64)
        y = np.full((batch_size, seq_len), IGNORED, np.int64)
        x[row, column] = token_file.tokens[positions[row, column]]
        y[row, column] = token_file.tokens[positions[row, column] + 1]
        yield torch.from_numpy(x), torch.from_numpy(y)
