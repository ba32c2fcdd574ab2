"""Recover vectors of tokens from vectors with noise: diffusion of embeddings."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from config import SampleConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text
from model import Hidden, Model
from objectives.base import Losses, Objective, Scores, in_chunks, score_hidden
from objectives.noise import keys_of_text, normal, uniform
from objectives.rows import Row
from objectives.vectors import rehearse, signal, write
from tools import LoggingModule, log_io

COLLAPSED = 0.1  # of the distance between vectors at the start


class Noised(NamedTuple):
    """Rows of n tokens, as many as the context has, whose vectors have noise."""

    tokens: Tensor  # (b, n), with padding after a text
    is_source: Tensor  # (b, n) bool
    vectors: Tensor  # (b, n, u), those of the tokens
    start: Tensor  # (b, n, u), with the noise of the first step: x_0
    x: Tensor  # (b, n, u), with that of the row's step, but for the source: x_t
    step: Tensor  # (b,)


class Rounding(LoggingModule):
    """The nats of tokens by the logits of vectors. Shape: (b, t, v), (b, t) -> (b, t)."""

    @log_io("b t v, b t -> b t")
    def forward(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.mT, tokens, reduction="none")


class DiffuSeq(Objective):
    """Diffusion of embeddings: mean square error + rounding + what is left of the signal at the last step.

    The vectors of a row become x_0 by the noise of the first step, and x_t by that of a step t that is drawn; the
    source of a row (the first token, or that of a pair) stays x_0. The model predicts x_0 from x_t and t: f. With the
    vectors E of the tokens w,

        mse = mean (x_0 - f)^2, at t = 0 mean (E_w - f)^2;  nll = mean -log softmax(x_0 E)_w;  t_T = mean abar_T x_0^2

    over all positions of a row, its source too, and channels. Gong et al. 2022, arXiv:2210.08933 (DiffuSeq). A row is
    filled with padding, a token that is learned as the others, as in the paper: texts are written on rows of the same
    length. With `by_losses` steps of large losses are drawn more often, and weigh less (LossHistory).
    """

    own = "diffuseq"

    def __init__(self, model: Model, *, by_losses: bool = False, num_draws: int = 8, loss_chunk: int | None = None):
        super().__init__(model)
        self.loss, self.loss_chunk, self.num_draws = Rounding(), loss_chunk, num_draws
        self.num_steps, self.padding, self.by_losses = model.cfg.noised_steps, model.cfg.vocab_size - 1, by_losses

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "DiffuSeq":
        return cls(model, by_losses=cfg.diffuseq.sampling == "loss", num_draws=cfg.diffuseq.draws,
                   loss_chunk=cfg.loss_chunk)

    @log_io
    def forward(self, batch: Batch) -> Losses:
        tokens, is_source, keys = self.filled(batch)
        step, weight = self.draw(keys)
        noised = self.noised(tokens, is_source, keys, step)
        hidden = self.read(noised.x, step)
        of_rows = self.parts(noised, self.model.head.vectors(hidden.last))  # (b,) each
        if self.by_losses and self.training:
            self.model.embed.history.note(step, sum(of_rows.values()).detach())
        means = {name: (part * weight.to(part.dtype)).mean() for name, part in of_rows.items()}
        own = sum(means.values())
        parts = {self.own: own, **means, "embedding_distance": self.distance(), **hidden.losses}
        return Losses(sum(hidden.losses.values(), own), {name: part.detach() for name, part in parts.items()})

    def filled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens of rows with padding up to the context (b, n), which are a source (b, n), and the keys (b,)."""
        row, n = Row.of(batch), self.model.cfg.max_seq_len
        tokens = row.tokens.masked_fill(row.positions < 0, self.padding)
        tokens = nn.functional.pad(tokens, (0, n - tokens.shape[1]), value=self.padding)
        is_source = torch.arange(n, device=tokens.device) < row.source_len.unsqueeze(-1)
        return tokens, is_source, keys_of_text(tokens) if batch.keys is None else batch.keys

    def draw(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """A noise step for each row, and the weight of its losses. Shape: (b,) -> (b,), (b,)."""
        if not self.by_losses:
            step = (uniform(keys) * self.num_steps).long()
            return step, torch.ones_like(step, dtype=torch.float64)
        p = self.model.embed.history.chances()
        reached = p.cumsum(0)
        step = torch.searchsorted(reached, uniform(keys) * reached[-1], right=True).clamp(max=self.num_steps - 1)
        return step, 1 / (self.num_steps * p[step])

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

    def parts(self, noised: Noised, found: Tensor) -> dict[str, Tensor]:
        """The terms of each row's loss, by the vectors that the model found (b, n, u). Shape: -> (b,) each."""
        is_first = (noised.step == 0).view(-1, 1, 1)
        mse = (torch.where(is_first, noised.vectors, noised.start) - found).square().mean((1, 2))
        last = signal(self.num_steps, found.device)[-1].type_as(found)
        return {"mse": mse, "nll": self.nats(noised.start, noised.tokens).mean(-1),
                "t_T": last * noised.start.square().mean((1, 2))}

    def nats(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """The nats of rounding vectors to tokens, over all positions at once or in chunks. Shape: -> (b, n)."""
        return torch.cat(in_chunks(self.nats_of_chunk, vectors, tokens, size=self.loss_chunk), dim=1)

    def nats_of_chunk(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        return self.loss(self.model.head.round(vectors), tokens)

    def distance(self) -> Tensor:
        """The root mean square distance between the vectors of two tokens, 1 for those of the start: a scalar."""
        return self.model.embed.tokens.weight[: self.padding + 1].var(0).mean().sqrt()

    def trouble(self, parts: dict[str, float]) -> str | None:
        """Vectors that come together make every loss low, and tell no token from another."""
        if parts["embedding_distance"] >= COLLAPSED:
            return None
        return (f"the vectors of tokens have come together: embedding_distance={parts['embedding_distance']:.3g} is "
                f"below {COLLAPSED:g} of that of the start")

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """The nats of rounding what the model finds, mean over steps that are spread evenly; no likelihood.

        The noise follows from the row's tokens alone.
        """
        tokens, is_source, keys = self.filled(batch._replace(keys=None))
        row, found = Row.of(batch), []
        targets = row.tokens.where(row.is_target, IGNORED)[:, 1:]
        for draw in range(self.num_draws):
            step = torch.full_like(keys, self.num_steps * (2 * draw + 1) // (2 * self.num_draws))
            noised = self.noised(tokens, is_source, keys, step, draw=draw)
            hidden = self.read(noised.x, step)
            states = hidden.last[:, 1 : targets.shape[1] + 1]
            found.append(score_hidden(self.model.predict, hidden._replace(last=states), targets, top_k,
                                      chunk=self.loss_chunk))
        nats, right = (sum(each) / self.num_draws for each in zip(*(one[:2] for one in found), strict=True))
        return Scores(nats, right, row.is_target[:, 1:])

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return write(self, texts, cfg, eos_id=eos_id, num_ids=num_ids)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        rehearse(self, len(prompts))
