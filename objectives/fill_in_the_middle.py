"""Predict the next token, in part of the rows of a middle after the text on both sides of it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from config import SampleConfig, TrainConfig, replace
from data import IGNORED, Batch
from generation.sampling import Text
from model import Hidden, Model
from objectives.base import Losses, Predictor, Scores
from objectives.cuts import CharacterCuts, Cut, chosen
from objectives.noise import uniform
from objectives.rows import Row
from tokenizer import Tokenizer
from tools import log_io


class FillInTheMiddle(Predictor):
    """Fill in the middle: cut a share `rate` of the rows at two random places, and move the middle to the end.

    A row becomes (PSM) PRE prefix SUF suffix MID middle, or a share `spm_rate` of them (SPM) PRE SUF suffix MID prefix
    middle; the first token stays first, and the last of a text last, so that a middle ends with it. PRE, SUF and MID
    are ids of their own, which are predicted like all tokens. Bavarian et al. 2022, arXiv:2207.14255. The source of a
    pair is not cut. A score, and a text that is continued, is of the tokens in their own order, and of no such id.
    Cuts are those of a batch (see CharacterCuts); without them they are between tokens.
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

    @classmethod
    def batch_change(cls, cfg: TrainConfig, tokenizer: Tokenizer) -> CharacterCuts | None:
        return CharacterCuts(tokenizer, rate=cfg.fim.rate) if cfg.fim.cut == "character" else None

    @log_io
    def forward(self, batch: Batch) -> Losses:
        row = Row.of(batch)
        is_cut, is_spm = chosen(row.keys, self.rate), uniform(row.keys, draw=1) < self.spm_rate
        return self.losses(*self.read(row, Cut.of(row, batch.cuts).places(row, is_cut=is_cut, is_spm=is_spm)))

    def read(self, row: Row, places: Tensor) -> tuple[Hidden, Tensor]:
        """The states that predict a row in another order, and their targets. Shape: places (b, t + 3) -> (b, t + 2)."""
        sentinels = torch.arange(self.pre_id, self.pre_id + 3, device=places.device).expand(len(places), -1)
        is_new = (places[:, -3:-2] < row.tokens.shape[1]).expand(-1, 3)  # else they are padding
        tokens, is_target = (torch.empty_like(both).scatter(1, places, both) for both in (
            torch.cat([row.tokens, sentinels], dim=1), torch.cat([row.is_target, is_new], dim=1)))
        return self.model.read(tokens[:, :-1]), tokens.where(is_target, IGNORED)[:, 1:]

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

        Without cuts of the batch their places follow from the row's tokens alone.
        """
        row = Row.of(batch._replace(keys=None))
        cut, every = Cut.of(row, batch.cuts), torch.ones_like(row.keys, dtype=torch.bool)
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
