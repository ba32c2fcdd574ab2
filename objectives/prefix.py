"""Predict the rest of a text after a prefix, which is read in both directions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from config import SampleConfig
from data import IGNORED, Batch
from generation.sampling import Text, continue_texts
from model import Hidden
from modules.masks import positions_within
from objectives.base import Losses, Predictor, Scores
from objectives.noise import uniform
from objectives.rows import Row
from tools import log_io


class Prefix(Predictor):
    """A prefix language model: all tokens see the prefix of their document, and those after it their past too.

    Only the tokens after the prefix are predicted. Its length is uniform from 1 to one token less than the document's;
    the prefix of a pair is its source. Raffel et al. 2020, arXiv:1910.10683, section 3.2; Wang et al. 2022,
    arXiv:2204.05832. In generation the prompt is the prefix.
    """

    own = "prefix"

    @log_io
    def forward(self, batch: Batch) -> Losses:
        return self.losses(*self.read(batch, prefix_lens(batch, Row.of(batch).keys)))

    def read(self, batch: Batch, lens: Tensor) -> tuple[Hidden, Tensor]:
        """The states that predict, and their targets: -100 in the prefix of `lens` tokens. Shape: lens, targets (b, t).
        """
        places = positions_within(ids_of(batch))
        hidden = self.model.read(batch.x, documents=batch.documents, sight=sight_of(places < lens))
        return hidden, batch.y.where(places >= lens - 1, IGNORED)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """How well the targets after a prefix are predicted, whose length follows from the row's tokens alone."""
        lens = prefix_lens(batch, Row.of(batch._replace(keys=None)).keys)
        return self.scores(*self.read(batch, lens), top_k)

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
        use_cache: bool = True,
    ) -> Iterator[tuple[int, int]]:
        return continue_texts(self.model, texts, cfg, eos_id=eos_id, num_ids=num_ids, use_cache=use_cache,
                              given=given_to_prompts)


def ids_of(batch: Batch) -> Tensor:
    """The number of each token's document in its row. Shape: (b, t)."""
    return torch.zeros_like(batch.x) if batch.documents is None else batch.documents


def prefix_lens(batch: Batch, keys: Tensor) -> Tensor:
    """The length of the prefix of each token's document: random, or of a pair the length of its source.

    Shape: keys (b,) -> (b, t).
    """
    ids, is_target = ids_of(batch), batch.y != IGNORED
    within = positions_within(ids)
    start = torch.arange(ids.shape[1], device=ids.device) - within  # (b, t), where the document begins
    none = torch.full_like(within, ids.shape[1])
    first = none.scatter_reduce(1, start, within.where(is_target, none), "amin").gather(1, start)
    last = torch.zeros_like(within).scatter_reduce(1, start, within.where(is_target, 0), "amax").gather(1, start)
    share = uniform(keys, ids.shape[1:]).gather(1, start)
    return torch.where(first > 0, first, (share * (last + 1)).long()) + 1


def sight_of(in_prefix: Tensor) -> Tensor:
    """What a token sees: its past, and the prefix. Shape: (b, t) bool -> (b, t, t)."""
    t = in_prefix.shape[-1]
    return torch.ones(t, t, dtype=torch.bool, device=in_prefix.device).tril() | in_prefix.unsqueeze(-2)


def given_to_prompts(texts: list[Text], positions: Tensor) -> dict[str, Tensor]:
    """The sight of texts whose prefix is what is still seen of their prompts. Shape: (t,) or (b, t) -> (b, t, t)."""
    lens = torch.tensor([text.num_prompt - text.start for text in texts], device=positions.device)
    return {"sight": sight_of(positions < lens.unsqueeze(-1))}
