"""Predict masked tokens from all others: diffusion whose noise replaces tokens by a mask."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from config import TrainConfig
from data import Batch
from model import Model
from modules.across import own_rows, rows_of_all
from objectives.base import Losses, Scores
from objectives.masking import MaskPredictor
from objectives.noise import ranks, uniform
from objectives.rows import Row
from tools import log_io


class MaskedDiffusion(MaskPredictor):
    """Masked diffusion: mask a random share of the tokens, and predict these from the others, on both sides.

    The share of each row is uniform from min_share to max_share, and spread evenly over the rows of a batch. With
    `weighted` a masked token's nats count 1 / share times, which makes the mean over shares a bound on the nats of the
    text; without, twice, so that their scale is the same. Divided by the number of all tokens, masked or not. The mask
    is never predicted, and the model is not told the share: Sahoo et al. 2024, arXiv:2406.07524 (MDLM); Nie et al.
    2025, arXiv:2502.09992 (LLaDA). With `shift` the output at a token predicts the next one: arXiv:2508.15487 (Dream).
    A batch has the rows of next-token training; the model reads their tokens and the one after the last, t in all.
    """

    own = "masked_diffusion"
    block_len: int | None = None  # tokens that have a share of their own; None = a row

    def __init__(
        self, model: Model, *, weighted: bool = False, min_share: float = 1e-3, max_share: float = 1.0,
        by_orders: bool = False, num_draws: int = 8, **options,
    ):
        super().__init__(model, **options)
        self.weighted, self.min_share, self.max_share = weighted, min_share, max_share
        self.draws, self.num_draws = orders if by_orders else masks, num_draws

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "MaskedDiffusion":
        return cls(model, **cls.options_of(cfg))

    @classmethod
    def options_of(cls, cfg: TrainConfig) -> dict[str, Any]:
        own = cfg.diffusion
        return {"weighted": own.weight == "bound", "shift": own.shift, "min_share": own.min_share,
                "max_share": own.max_share, "by_orders": own.estimate == "orders", "num_draws": own.draws,
                "loss_chunk": cfg.loss_chunk, "log_accuracy": cfg.log_accuracy}

    @log_io
    def forward(self, batch: Batch) -> Losses:
        row = Row.of(batch)
        share = self.shares(row)
        is_masked = (uniform(row.keys, row.tokens.shape[1:]) < share) & row.is_target
        weight = 1 / share if self.weighted else torch.full_like(share, 2)
        hidden, targets = self.read(row, row.tokens.masked_fill(is_masked, self.mask_id), is_masked)
        return self.losses(hidden, targets, weights=weight[:, 1:].float(), per=row.is_target)

    def shares(self, row: Row) -> Tensor:
        """The probability of each token to be masked in training. Shape: (b, t)."""
        t = row.tokens.shape[1]
        size = self.block_len or t
        part = own_rows(spread(rows_of_all(row.keys), -(-t // size)))[:, blocks(row, size)]
        return self.min_share + (self.max_share - self.min_share) * part

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """A bound on the nats of each target: the mean over orders of predicting one token after another.

        The draws follow from the row's tokens alone. See `masks` and `orders`.
        """
        row, total = Row.of(batch._replace(keys=None)), None
        size = min(self.block_len or row.tokens.shape[1], row.tokens.shape[1])
        for is_masked, weight in self.draws(row, self.num_draws, size):
            shown = row.tokens.masked_fill(is_masked, self.mask_id)
            found = self.scores(*self.read(row, shown, is_masked), top_k)
            weight = weight[:, 1:].float() / self.num_draws
            one = found.nats * weight, found.right * weight.unsqueeze(-1)
            total = one if total is None else tuple(map(torch.add, total, one))
        return Scores(*total, row.is_target[:, 1:])


def masks(row: Row, number: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks of random tokens of each block of `size`, their numbers spread evenly from 1 to all n of its targets.

    With k masked, each counts n / k times. The mean over numbers and masks is that over all orders. Nie et al. 2025,
    arXiv:2502.09992, appendix B. Shape: -> `number` times what is masked (b, t) and the weights of the tokens (b, t).
    """
    block = blocks(row, size)
    n = torch.zeros_like(row.tokens[:, : -(-len(block) // size)]).index_add(1, block, row.is_target.long())
    for draw in range(number):
        part = (draw + uniform(row.keys, n.shape[1:], draw=2 * draw)) / number  # in [0, 1)
        k = 1 + (n * part).long()  # (b, blocks)
        rank = ranks(row.keys, row.is_target, draw=2 * draw + 1, size=size)
        yield (rank < k[:, block]) & row.is_target, (n / k)[:, block]


def orders(row: Row, number: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole orders of each block: all masked, then one more token visible each time, and the next one counts once.

    Shape: -> `number` times `size`, or t - 1, times what is masked (b, t) and the weights of the tokens (b, t).
    """
    for draw in range(number):
        rank = ranks(row.keys, row.is_target, draw=2 * draw + 1, size=size)
        for place in range(min(size, row.tokens.shape[1] - 1)):
            yield (rank >= place) & row.is_target, (rank == place) & row.is_target


def blocks(row: Row, size: int) -> Tensor:
    """The number of the block of each token of a row. Shape: (t,)."""
    return torch.arange(row.tokens.shape[1], device=row.tokens.device) // size


def spread(keys: Tensor, number: int) -> Tensor:
    """Numbers in [0, 1) for each of b rows, one in each of b * number equal parts. Shape: (b,) -> (b, number)."""
    row, column = (torch.arange(size, device=keys.device) for size in (len(keys), number))
    index = row.unsqueeze(-1) + column * len(keys)
    return (uniform(keys[:1], draw=1) + index / (len(keys) * number)) % 1
