"""The base of objectives that predict masked tokens of whole rows, and fill in masks to write texts."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from config import SampleConfig
from data import IGNORED
from generation.sampling import Text, distribution
from model import Hidden, Model
from objectives.base import Predictor
from objectives.denoising import denoise, logits_of
from objectives.rows import Row


class MaskPredictor(Predictor):
    """Predict chosen tokens of a row, of which some are shown as a mask; it has the last id and is never predicted.

    The output at a token is for itself; with `shift` for the next one.
    """

    def __init__(self, model: Model, *, shift: bool = False, **options):
        super().__init__(model, **options)
        self.shift, self.mask_id = shift, model.cfg.vocab_size - 1

    def read(self, row: Row, shown: Tensor, wanted: Tensor) -> tuple[Hidden, Tensor]:
        """The states that predict, from what is shown (b, t), and the targets (b, t - 1): -100 if not wanted (b, t)."""
        hidden = self.model.read(shown, positions=row.positions)
        last = hidden.last[:, :-1] if self.shift else hidden.last[:, 1:]
        return hidden._replace(last=last), row.tokens.where(wanted, IGNORED)[:, 1:]

    def allowed(self, logits: Tensor) -> Tensor:
        return without(logits, self.mask_id)

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return denoise(self.model, texts, cfg, mask_id=self.mask_id, shift=int(self.shift), eos_id=eos_id,
                       num_ids=num_ids)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        t = min(self.model.cfg.max_seq_len, max(map(len, prompts)) + cfg.max_new_tokens)
        logits = logits_of(self.model, torch.zeros(len(prompts), t, dtype=torch.int64), torch.arange(t))
        distribution(logits[0], cfg, [[0]] * t)


def without(logits: Tensor, token: int) -> Tensor:
    """The logits of all tokens but one, which is never predicted. Shape: (..., v) -> (..., v)."""
    barred = torch.arange(logits.shape[-1], device=logits.device) == token
    return logits.masked_fill(barred, float("-inf"))
