"""The base of objectives that recover vectors of tokens from vectors with noise, and write texts from noise."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from config import SampleConfig
from data import Batch
from generation.sampling import Text
from model import Hidden, Model
from objectives.base import Objective
from objectives.noise import keys_of_text, normal
from objectives.rows import Row
from objectives.vectors import rehearse, signal, write

COLLAPSED = 0.1  # of the distance between vectors at the start


class Noised(NamedTuple):
    """Rows of n tokens, as many as the context has, whose vectors have noise."""

    tokens: Tensor  # (b, n), with padding after a text
    is_source: Tensor  # (b, n) bool
    vectors: Tensor  # (b, n, u), those of the tokens
    start: Tensor  # (b, n, u), with the noise of the first step: x_0
    x: Tensor  # (b, n, u), with that of the row's step, but for the source: x_t
    step: Tensor  # (b,)


class VectorDenoiser(Objective):
    """Add noise to the vectors of rows, and read vectors with noise.

    The vectors of a row become x_0 by the noise of the first step, and x_t by that of a step t; the source of a row
    (the first token, or that of a pair) stays x_0. A row is filled with padding up to the context, an id of its own
    that is learned as the other tokens: texts are written on rows of the same length.
    """

    def __init__(self, model: Model):
        super().__init__(model)
        self.num_steps, self.padding = model.cfg.noised_steps, model.cfg.vocab_size - 1

    def filled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens of rows with padding up to the context (b, n), which are a source (b, n), and the keys (b,)."""
        row, n = Row.of(batch), self.model.cfg.max_seq_len
        tokens = row.tokens.masked_fill(row.positions < 0, self.padding)
        tokens = nn.functional.pad(tokens, (0, n - tokens.shape[1]), value=self.padding)
        is_source = torch.arange(n, device=tokens.device) < row.source_len.unsqueeze(-1)
        return tokens, is_source, keys_of_text(tokens) if batch.keys is None else batch.keys

    def noised(self, tokens: Tensor, is_source: Tensor, keys: Tensor, step: Tensor, *, draw: int = 0) -> Noised:
        """Add the noise of the first step to the vectors of tokens, and that of `step` to those after a source."""
        vectors = self.model.embed.tokens(tokens)
        first, further = (normal(keys, vectors.shape[1:], draw=2 * draw + i).type_as(vectors) for i in (1, 2))
        kept = signal(self.num_steps, tokens.device)
        start = vectors + (1 - kept[0]).sqrt().type_as(vectors) * first
        kept = kept[step].view(-1, 1, 1)
        x = kept.sqrt().type_as(vectors) * start + (1 - kept).sqrt().type_as(vectors) * further
        return Noised(tokens, is_source, vectors, start, torch.where(is_source.unsqueeze(-1), start, x), step)

    def read(self, x: Tensor, step: Tensor) -> Hidden:
        """The states after vectors with the noise of a step. Shape: (b, n, u), (b,)."""
        embed, positions = self.model.embed, torch.arange(x.shape[1], device=x.device)
        stream = embed.enter(x, step * (1000 / self.num_steps), positions)
        no_tokens = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        return self.model.read(no_tokens, x=stream)

    def distance(self) -> Tensor:
        """The root mean square distance between the vectors of two tokens, 1 for those of the start: a scalar."""
        return self.model.embed.tokens.weight[: self.padding + 1].var(0).mean().sqrt()

    def trouble(self, parts: dict[str, float]) -> str | None:
        """Vectors that come together make every loss low, and tell no token from another."""
        if parts["embedding_distance"] >= COLLAPSED:
            return None
        return (f"the vectors of tokens have come together: embedding_distance={parts['embedding_distance']:.3g} is "
                f"below {COLLAPSED:g} of that of the start")

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return write(self, texts, cfg, eos_id=eos_id, num_ids=num_ids)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        rehearse(self, len(prompts))
