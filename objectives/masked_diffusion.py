"""Predict masked tokens from all others: diffusion whose noise replaces tokens by a mask."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from config import SampleConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text, distribution
from model import Hidden, Model
from objectives.base import Losses, Predictor, Scores
from objectives.denoising import denoise, logits_of
from objectives.noise import ranks, uniform
from objectives.rows import Row
from tools import log_io


class MaskedDiffusion(Predictor):
    """Masked diffusion: mask a random share of the tokens, and predict these from the others, on both sides.

    The share of each row is uniform from min_share to 1, and spread evenly over the rows of a batch. With
    `weighted` a masked token's nats count 1 / share times, which makes the mean over shares a bound on the nats of the
    text; without, twice, so that their scale is the same. Divided by the number of all tokens, masked or not. The mask
    is never predicted, and the model is not told the share: Sahoo et al. 2024, arXiv:2406.07524 (MDLM); Nie et al.
    2025, arXiv:2502.09992 (LLaDA). With `shift` the output at a token predicts the next one: arXiv:2508.15487 (Dream).
    A batch has the rows of next-token training; the model reads their tokens and the one after the last, t in all.
    """

    own = "masked_diffusion"

    def __init__(
        self, model: Model, *, weighted: bool = False, shift: bool = False, min_share: float = 1e-3,
        by_orders: bool = False, num_draws: int = 8, **options,
    ):
        super().__init__(model, **options)
        self.weighted, self.shift, self.min_share = weighted, shift, min_share
        self.draws, self.num_draws = orders if by_orders else masks, num_draws
        self.mask_id = model.cfg.vocab_size - 1

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "MaskedDiffusion":
        own = cfg.diffusion
        return cls(model, weighted=own.weight == "bound", shift=own.shift, min_share=own.min_share,
                   by_orders=own.estimate == "orders", num_draws=own.draws, loss_chunk=cfg.loss_chunk,
                   log_accuracy=cfg.log_accuracy)

    @log_io
    def forward(self, batch: Batch) -> Losses:
        row = Row.of(batch)
        share = self.min_share + (1 - self.min_share) * spread(row.keys)  # (b,)
        is_masked = (uniform(row.keys, row.tokens.shape[1:]) < share.unsqueeze(-1)) & row.is_target
        weight = 1 / share if self.weighted else torch.full_like(share, 2)
        hidden, targets = self.read(row, is_masked)
        weights = weight.float().unsqueeze(-1).expand_as(targets)
        return self.losses(hidden, targets, weights=weights, per=row.is_target.sum().clamp(min=1))

    def read(self, row: Row, is_masked: Tensor) -> tuple[Hidden, Tensor]:
        """The states that predict, and their targets: -100 if a token is visible. Shape: targets (b, t - 1)."""
        shown = row.tokens.masked_fill(is_masked, self.mask_id)
        hidden = self.model.read(shown, positions=row.positions)
        last = hidden.last[:, :-1] if self.shift else hidden.last[:, 1:]
        return hidden._replace(last=last), row.tokens.where(is_masked, IGNORED)[:, 1:]

    def predict(self, hidden: Hidden) -> Tensor:
        return without(self.model.predict(hidden), self.mask_id)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """A bound on the nats of each target: the mean over orders of predicting one token after another.

        The draws follow from the row's tokens alone. See `masks` and `orders`.
        """
        row, total = Row.of(batch._replace(keys=None)), None
        for is_masked, weight in self.draws(row, self.num_draws):
            found = self.scores(*self.read(row, is_masked), top_k)
            weight = weight[:, 1:].float() / self.num_draws
            one = found.nats * weight, found.right * weight.unsqueeze(-1)
            total = one if total is None else tuple(map(torch.add, total, one))
        return Scores(*total, row.is_target[:, 1:])

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return denoise(self.model, texts, cfg, mask_id=self.mask_id, shift=int(self.shift), eos_id=eos_id,
                       num_ids=num_ids)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        t = min(self.model.cfg.max_seq_len, max(map(len, prompts)) + cfg.max_new_tokens)
        logits = logits_of(self.model, torch.zeros(len(prompts), t, dtype=torch.int64), torch.arange(t))
        distribution(logits[0], cfg, [[0]] * t)


def masks(row: Row, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks of random tokens, their sizes spread evenly from 1 to all n; with k masked, each counts n / k times.

    The mean over sizes and masks is that over all orders. Nie et al. 2025, arXiv:2502.09992, appendix B.
    Shape: -> `number` times what is masked (b, t) and the weights of the tokens (b, t).
    """
    n = row.is_target.sum(-1, keepdim=True)
    for draw in range(number):
        part = (draw + uniform(row.keys, (1,), draw=2 * draw)) / number  # in [0, 1)
        k = 1 + (n * part).long()  # (b, 1)
        yield (ranks(row.keys, row.is_target, draw=2 * draw + 1) < k) & row.is_target, (n / k).expand_as(row.tokens)


def orders(row: Row, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole orders: all masked, then one more token visible each time, and the next one counts once.

    Shape: -> `number` times t - 1 times what is masked (b, t) and the weights of the tokens (b, t).
    """
    for draw in range(number):
        rank = ranks(row.keys, row.is_target, draw=2 * draw + 1)
        for place in range(row.tokens.shape[1] - 1):
            yield (rank >= place) & row.is_target, (rank == place) & row.is_target


def spread(keys: Tensor) -> Tensor:
    """A number in [0, 1) for each row of a batch, one in each of b equal parts. Shape: (b,) -> (b,)."""
    index = torch.arange(len(keys), device=keys.device)
    return (uniform(keys[:1], draw=1) + index / len(keys)) % 1


def without(logits: Tensor, token: int) -> Tensor:
    """The logits of all tokens but one, which is never predicted. Shape: (..., v) -> (..., v)."""
    barred = torch.arange(logits.shape[-1], device=logits.device) == token
    return logits.masked_fill(barred, float("-inf"))
