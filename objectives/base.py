"""The base classes of objectives, and their results: losses for training, scores for evaluation."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import FACTS, SampleConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text, begin_texts, continue_texts, in_batches
from model import Hidden, Model
from modules.across import per_process
from tokenizer import Tokenizer
from tools import LoggingModule, log_io


class Losses(NamedTuple):
    """The loss of a batch and its parts."""

    total: Tensor  # to differentiate; a scalar in nats per target
    parts: dict[str, Tensor]  # detached, by name: the objective's own, "z", "balance", ...; each a column of the log


class Scores(NamedTuple):
    """How well each target of a batch is predicted; for a bound, the mean over the draws."""

    nats: Tensor  # (b, t) float32; 0 at a position without a target
    right: Tensor  # (b, t, k) float32, whether the target is the likeliest token, among the two likeliest, ...
    counted: Tensor  # (b, t) bool, the targets that these are of: all, or those that the objective predicts


class Objective(LoggingModule):
    """What the model learns. It holds the model; torch.compile wraps the objective.

    `own` is the part of the losses that is reported as training and validation loss.
    """

    own: str

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "Objective":
        raise NotImplementedError

    @classmethod
    def batch_change(cls, cfg: TrainConfig, tokenizer: Tokenizer) -> Callable[[Batch], Batch] | None:
        """What is done with each batch before it is trained on, or scored by one of `other_scores`; None = nothing."""
        return None

    def forward(self, batch: Batch) -> Losses:
        """The losses of a batch in training."""
        raise NotImplementedError

    def trouble(self, parts: dict[str, float]) -> str | None:
        """What is wrong with the parts of the losses of a step, so that training must end; None = nothing."""
        return None

    def stream(
        self, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """Continue prompts: yields (row, token) for every unfinished row in turn. See generation.sampling.stream."""
        return self.continue_texts(begin_texts(self.model.cfg, prompts, cfg.seed), cfg, eos_id=eos_id, num_ids=num_ids)

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """`stream`, of texts that have begun."""
        return continue_texts(self.model, texts, cfg, eos_id=eos_id, num_ids=num_ids)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        """Continue prompts as far as the memory that it takes depends on, which is two tokens of each."""
        tokens = self.stream(prompts, cfg, eos_id=-1)
        for _ in range(min(2, cfg.max_new_tokens) * len(prompts)):
            next(tokens)
        tokens.close()

    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """How well each target of a batch is predicted."""
        raise NotImplementedError

    def other_scores(self) -> dict[str, Callable[[Batch], Scores]]:
        """What else an evaluation measures in bits per byte, by the column of the log."""
        return {}

    @property
    def row_len(self) -> int:
        """The most tokens in a row of a batch."""
        return self.model.cfg.max_seq_len - FACTS[self.own].room

    def generate(
        self, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> list[list[int]]:
        """The new tokens of each prompt, in batches that take less memory than a training step."""
        new = [[] for _ in prompts]
        for texts in in_batches(begin_texts(self.model.cfg, prompts, cfg.seed), self.model.cfg):
            for row, token in self.continue_texts(texts, cfg, eos_id=eos_id, num_ids=num_ids):
                new[row].append(token)
        return new


class CrossEntropy(LoggingModule):
    """The nats of all targets, with `z_loss` the squares of logsumexp(logits), and with `accuracy` the number of
    targets that are the likeliest token; sums, not means. With weights each target's nats count so many times.

    Shape: logits (b, t, v), targets (b, t) int64, weights (b, t) -> scalars. Targets of -100 do not count.
    """

    def __init__(self, *, z_loss: bool = False, accuracy: bool = False):
        super().__init__()
        self.z_loss, self.accuracy = z_loss, accuracy

    @log_io("b t v, b t -> ")
    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        logits, targets = logits.flatten(0, 1), targets.flatten()
        sums = [weighted_nats(logits, targets, weights)]
        if self.z_loss:
            sums.append(logits.logsumexp(-1).square().where(targets != IGNORED, 0.0).sum())
        if self.accuracy:
            sums.append((logits.detach().argmax(-1) == targets).sum().float())
        return sums


def weighted_nats(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of the nats of targets. Shape: (n, v), (n,), (b, t) of n tokens -> a scalar."""
    if weights is None:
        return nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    nats = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return (nats * weights.flatten()).sum()


class Predictor(Objective):
    """An objective whose loss is a cross-entropy of tokens: mean nats, plus z_loss * mean(logsumexp(logits)^2).

    The second term keeps logits from drifting: Chowdhery et al. 2022, arXiv:2204.02311, section 5. With `loss_chunk`
    the logits exist for that many positions of each row at a time, and are recomputed for the gradient: less memory,
    the same loss. With `log_accuracy` the share of targets that were the likeliest token is a part of the losses, which
    is not learned from.
    """

    def __init__(self, model: Model, *, loss_chunk: int | None = None, log_accuracy: bool = False):
        super().__init__(model)
        self.loss_chunk, self.z_loss = loss_chunk, model.cfg.z_loss
        self.loss = CrossEntropy(z_loss=self.z_loss > 0, accuracy=log_accuracy)
        self.names = [self.own, *["z"] * self.loss.z_loss, *["train_accuracy"] * log_accuracy]

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "Predictor":
        return cls(model, loss_chunk=cfg.loss_chunk, log_accuracy=cfg.log_accuracy)

    def losses(self, hidden: Hidden, targets: Tensor, *, weights: Tensor | None = None, per: Tensor | None = None,
               ) -> Losses:
        """The losses of targets (b, t); their nats are divided by how many are `per` (b, t), None = by their number.

        A number is at least 1; of several processes, each divides by the mean of theirs.
        """
        count = num_targets(targets)
        divisors = [count if per is None else at_least_one(per), count, count]
        means = {name: total / divisor for name, total, divisor in zip(
            self.names, self.sums(hidden, targets, weights), divisors[: len(self.names)], strict=True)}
        others = [*([self.z_loss * means["z"]] if self.z_loss else []), *hidden.losses.values()]
        parts = means | hidden.losses
        return Losses(sum(others, means[self.own]), {name: part.detach() for name, part in parts.items()})

    def sums(self, hidden: Hidden, targets: Tensor, weights: Tensor | None) -> list[Tensor]:
        """The sums of CrossEntropy, over all positions at once or in chunks."""
        if self.loss_chunk is None:
            return self.sums_of_chunk(hidden, targets, weights)
        weights = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights
        pieces = zip(hidden.chunks(targets, self.loss_chunk), weights.split(self.loss_chunk, dim=1), strict=True)
        chunks = [checkpoint(self.sums_of_chunk, part, wanted, weight, use_reentrant=False)
                  for (part, wanted), weight in pieces]
        return [torch.stack(each).sum() for each in zip(*chunks, strict=True)]

    def sums_of_chunk(self, hidden: Hidden, targets: Tensor, weights: Tensor | None) -> list[Tensor]:
        return self.loss(self.predict(hidden), targets, weights)

    def predict(self, hidden: Hidden) -> Tensor:
        """The logits of each position. Shape: (b, t, v)."""
        return self.model.predict(hidden)

    def scores(self, hidden: Hidden, targets: Tensor, top_k: int) -> Scores:
        """How well targets (b, t) are predicted."""
        return score_hidden(self.predict, hidden, targets, top_k, chunk=self.loss_chunk)


def in_chunks(call: Callable[..., Tensor], *parts: Tensor, size: int | None) -> list[Tensor]:
    """`call` on parts (b, t, ...), or on chunks of `size` positions, which are computed again for the gradient."""
    if size is None:
        return [call(*parts)]
    pieces = zip(*(part.split(size, dim=1) for part in parts), strict=True)
    return [checkpoint(call, *piece, use_reentrant=False) for piece in pieces]


def score_hidden(
    predict: Callable[[Hidden], Tensor], hidden: Hidden, targets: Tensor, top_k: int, *, chunk: int | None,
) -> Scores:
    """How well targets (b, t) are predicted by the logits of hidden states, in chunks of so many positions."""
    pairs = [score_logits(predict(part), wanted, top_k) for part, wanted in hidden.chunks(targets, chunk)]
    return Scores(*(torch.cat(each, dim=1) for each in zip(*pairs, strict=True)), targets != IGNORED)


def score_logits(logits: Tensor, targets: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The nats of each target, and whether it is among the likeliest. Shape: (b, t, v), (b, t) -> (b, t), (b, t, k)."""
    nats = nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")  # (b*t,)
    hits = likeliest(logits, top_k) == targets.unsqueeze(-1)
    return nats.view_as(targets), hits.cumsum(-1).clamp(max=1).float()


def likeliest(logits: Tensor, k: int) -> Tensor:
    """The k likeliest tokens; of equal ones, the first if k is 1. Shape: (..., v) -> (..., k)."""
    if k == 1:
        return logits.argmax(-1, keepdim=True)
    return logits.topk(min(k, logits.shape[-1])).indices


def num_targets(targets: Tensor) -> Tensor:
    """The number of targets that count, at least 1; see at_least_one."""
    return at_least_one(targets != IGNORED)


def at_least_one(which: Tensor) -> Tensor:
    """How many there are, at least 1; of several processes the mean."""
    return per_process(which.sum(), least=1)
