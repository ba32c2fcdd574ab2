"""Predict the next token, in part of the rows of a middle after the text on both sides of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from config import SampleConfig, TrainConfig, replace
from data import IGNORED, Batch
from generation.sampling import Text
from model import Hidden, Model
from objectives.base import Losses, Predictor, Scores
from objectives.noise import uniform
from objectives.rows import Row
from tools import log_io


class FillInTheMiddle(Predictor):
    """Fill in the middle: cut a share `rate` of the rows at two random places, and move the middle to the end.

    A row becomes (PSM) PRE prefix SUF suffix MID middle, or a share `spm_rate` of them (SPM) PRE SUF suffix MID prefix
    middle; the first token stays first, and the last of a text last, so that a middle ends with it. PRE, SUF and MID
    are ids of their own, which are predicted like all tokens. Bavarian et al. 2022, arXiv:2207.14255. The source of a
    pair is not cut. A score, and a text that is continued, is of the tokens in their own order, and of no such id.
    """

    own = "fill_in_the_middle"

    def __init__(self, model: Model, *, rate: float = 0.5, spm_rate: float = 0.5, **options):
        super().__init__(model, **options)
        self.rate, self.spm_rate = rate, spm_rate
        self.pre_id = model.cfg.vocab_size - 3
        self.suf_id, self.mid_id = self.pre_id + 1, self.pre_id + 2

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "FillInTheMiddle":
        return cls(model, rate=cfg.fim.rate, spm_rate=cfg.fim.spm_rate, loss_chunk=cfg.loss_chunk,
                   log_accuracy=cfg.log_accuracy)

    @log_io
    def forward(self, batch: Batch) -> Losses:
        row = Row.of(batch)
        is_cut = uniform(row.keys, draw=0) < self.rate
        is_spm = uniform(row.keys, draw=1) < self.spm_rate
        return self.losses(*self.read(row, Cut.of(row).places(row, is_cut=is_cut, is_spm=is_spm)))

    def read(self, row: Row, places: Tensor) -> tuple[Hidden, Tensor]:
        """The states that predict a row in another order, and their targets. Shape: places (b, t + 3) -> (b, t + 2)."""
        sentinels = torch.arange(self.pre_id, self.pre_id + 3, device=places.device).expand(len(places), -1)
        is_new = (places[:, -3:-2] < row.tokens.shape[1]).expand(-1, 3)  # else they are padding
        tokens, is_target = (torch.empty_like(both).scatter(1, places, both) for both in (
            torch.cat([row.tokens, sentinels], dim=1), torch.cat([row.is_target, is_new], dim=1)))
        return self.model.read(tokens[:, :-1]), tokens.where(is_target, IGNORED)[:, 1:]

    def sums_of_chunk(self, hidden: Hidden, targets: Tensor, weights: Tensor | None) -> list[Tensor]:
        return self.loss(self.model.predict(hidden), targets, weights)

    def predict(self, hidden: Hidden) -> Tensor:
        """The logits of the tokens of texts, which are scored."""
        logits = self.model.predict(hidden)
        return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= self.pre_id, float("-inf"))

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        return self.scores(self.model.read(batch.x), batch.y, top_k)

    @torch.no_grad()
    def score_middle(self, batch: Batch, *, top_k: int = 1, spm: bool = False) -> Scores:
        """How well the middle of each row, and the end of its text, is predicted from both sides of it.

        The places of the cuts follow from the row's tokens alone.
        """
        row = Row.of(batch._replace(keys=None))
        cut, every = Cut.of(row), torch.ones_like(row.keys, dtype=torch.bool)
        places = cut.places(row, is_cut=every, is_spm=every & spm)
        nats, right, _ = self.scores(*self.read(row, places), top_k)
        back = places[:, 1 : row.tokens.shape[1]] - 1  # (b, t), where each target is predicted
        counted = cut.is_middle(row)[:, 1:]
        right = right.gather(1, back.unsqueeze(-1).expand(-1, -1, right.shape[-1]))
        return Scores(nats.gather(1, back) * counted, right * counted.unsqueeze(-1), counted)

    def other_scores(self) -> dict[str, Callable[[Batch], Scores]]:
        return {"middle_bits_per_byte": self.score_middle}

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return super().continue_texts(texts, cfg, eos_id=eos_id, num_ids=min(num_ids or self.pre_id, self.pre_id))

    def infill(
        self, prefix: Sequence[int], suffix: Sequence[int], cfg: SampleConfig, *, eos_id: int,
        num_ids: int | None = None, spm: bool | None = None,
    ) -> list[list[int]]:
        """`cfg.num_samples` middles between a prefix, which has the first token, and a suffix, which has no last one.

        A middle ends with the end-of-text token, or if it fills the context. `spm` is the order in which the sides are
        read; None = the one that most rows had. Raises ValueError if the sides do not fit into the context.
        """
        first, *rest = prefix
        is_spm = self.spm_rate > 0.5 if spm is None else spm
        before, after = ([], rest) if is_spm else (rest, [])
        prompt = [first, self.pre_id, *before, self.suf_id, *suffix, self.mid_id, *after]
        room = self.model.cfg.max_seq_len - len(prompt) + 1
        if room < 1:
            raise ValueError(f"max_seq_len={self.model.cfg.max_seq_len} tokens do not hold the {len(prompt)} on both "
                             "sides of the gap: give a shorter prompt or suffix")
        cfg = replace(cfg, max_new_tokens=min(cfg.max_new_tokens, room))
        return self.generate([prompt] * cfg.num_samples, cfg, eos_id=eos_id, num_ids=num_ids)


class Cut(NamedTuple):
    """Where rows are cut: the prefix is [first, left), the middle [left, right), the suffix [right, end).

    After `end` comes the last token of a text that ends in the row; of one that goes on, nothing. Shape: (b, 1).
    """

    first: Tensor
    left: Tensor
    right: Tensor
    end: Tensor

    @classmethod
    def of(cls, row: Row) -> "Cut":
        """Two cuts at uniform places."""
        last = row.positions.amax(-1, keepdim=True)
        end = last + (last == row.tokens.shape[1] - 1)
        first = row.source_len.unsqueeze(-1)
        cuts = first + (uniform(row.keys, (2,), draw=2) * (end - first + 1)).long().sort(-1).values
        return cls(first, cuts[:, :1], cuts[:, 1:], end)

    def places(self, row: Row, *, is_cut: Tensor, is_spm: Tensor) -> Tensor:
        """Where the t tokens of a row go, and then PRE, SUF and MID; to the end of a row that is not cut.

        SPM is PSM with an empty prefix, and a middle that begins with it. Shape: is_cut, is_spm (b,) -> (b, t + 3).
        """
        token = torch.arange(row.tokens.shape[1], device=row.tokens.device).expand_as(row.tokens)
        left = self.first.where(is_spm.unsqueeze(-1), self.left)
        in_suffix = (token >= self.right) & (token < self.end)
        moved = torch.where(token < left, token + 1, token + 3 + self.end - self.right)
        moved = torch.where(in_suffix, token + 2 - (self.right - left), moved)
        moved = token.where(token < self.first, moved.where(token < self.end, token + 3))
        new = torch.cat([self.first, left + 1, left + 2 + self.end - self.right], dim=1)
        spare = (row.tokens.shape[1] + torch.arange(3, device=token.device)).expand_as(new)
        is_moved = (is_cut & row.is_target.any(-1)).unsqueeze(-1)
        return torch.cat([moved.where(is_moved, token), new.where(is_moved, spare)], dim=1)

    def is_middle(self, row: Row) -> Tensor:
        """The targets in the middle of a row, and the end of its text. Shape: (b, t)."""
        token = torch.arange(row.tokens.shape[1], device=row.tokens.device)
        return row.is_target & (token >= self.left) & ((token < self.right) | (token >= self.end))
