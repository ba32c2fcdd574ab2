"""Recover vectors of tokens from vectors with noise: diffusion of embeddings."""

import torch
from torch import Tensor, nn

from config import TrainConfig
from data import IGNORED, Batch
from model import Model
from modules.across import rows_of_all
from objectives.base import Losses, Scores, in_chunks, score_hidden
from objectives.noise import uniform
from objectives.noised_rows import Noised, VectorDenoiser
from objectives.rows import Row
from objectives.vectors import signal
from tools import LoggingModule, log_io


class Rounding(LoggingModule):
    """The nats of tokens by the logits of vectors. Shape: (b, t, v), (b, t) -> (b, t)."""

    @log_io("b t v, b t -> b t")
    def forward(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.mT, tokens, reduction="none")


class DiffuSeq(VectorDenoiser):
    """Diffusion of embeddings: mean square error + rounding + what is left of the signal at the last step.

    With the vectors E of the tokens w, x_0 and x_t (see VectorDenoiser) for a step t that is drawn, and what the model
    finds, f,

        mse = mean (x_0 - f)^2, at t = 0 mean (E_w - f)^2;  nll = mean -log softmax(x_0 E)_w;  t_T = mean abar_T x_0^2

    over all positions of a row, its source too, and channels. Gong et al. 2022, arXiv:2210.08933 (DiffuSeq). With
    `by_losses` steps of large losses are drawn more often, and weigh less (LossHistory).
    """

    own = "diffuseq"

    def __init__(self, model: Model, *, by_losses: bool = False, num_draws: int = 8, loss_chunk: int | None = None):
        super().__init__(model)
        self.loss, self.loss_chunk, self.num_draws, self.by_losses = Rounding(), loss_chunk, num_draws, by_losses

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
            self.model.embed.history.note(rows_of_all(step), rows_of_all(sum(of_rows.values()).detach()))
        means = {name: (part * weight.to(part.dtype)).mean() for name, part in of_rows.items()}
        own = sum(means.values())
        parts = {self.own: own, **means, "embedding_distance": self.distance(), **hidden.losses}
        return Losses(sum(hidden.losses.values(), own), {name: part.detach() for name, part in parts.items()})

    def draw(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """A noise step for each row, and the weight of its losses. Shape: (b,) -> (b,), (b,)."""
        if not self.by_losses:
            step = (uniform(keys) * self.num_steps).long()
            return step, torch.ones_like(step, dtype=torch.float64)
        p = self.model.embed.history.chances()
        reached = p.cumsum(0)
        step = torch.searchsorted(reached, uniform(keys) * reached[-1], right=True).clamp(max=self.num_steps - 1)
        return step, 1 / (self.num_steps * p[step])

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
