"""The base classes of objectives, and their results: losses for training, scores for evaluation."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import FACTS, SampleConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text, begin_texts, continue_texts, in_batches
from model import Hidden, Model
from modules.across import per_process
from modules.kernels import of_targets, sum_of_chunks
from tokenizer import Tokenizer
from tools import LoggingModule, log_io

T = TypeVar("T")
LOGITS = {"cpu": 2**21}  # at a time: 8 MB in float32, which stay in its cache
MOST_LOGITS = 2**27  # the same on other devices, where large products are what is fast
FEWEST = 256  # states at a time: with fewer, matrices are read more often than is hidden by what is done with them


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
    """The nats of each target, and the logsumexp of its logits; `copied` is what a pointer adds, see Model.copied.

    Shape: logits (b, t, v), targets (b, t) int64, copied (b, t) twice or nothing -> (b, t), (b, t). A target of -100
    has none.
    """

    @log_io("b t v, b t -> b t, b t")
    def forward(self, logits: Tensor, targets: Tensor, *copied: Tensor) -> tuple[Tensor, Tensor]:
        logit, nats = of_targets(logits, targets.clamp(min=0))
        total = logit + nats
        if copied:
            total = torch.logaddexp(total, copied[1])
            nats = total - torch.logaddexp(logit, copied[0])
        return nats.where(targets != IGNORED, 0.0), total.where(targets != IGNORED, 0.0)


class Predictor(Objective):
    """An objective whose loss is a cross-entropy of tokens: mean nats, plus z_loss * mean(logsumexp(logits)^2).

    The second term keeps logits from drifting: Chowdhery et al. 2022, arXiv:2204.02311, section 5. The logits exist
    for `loss_chunk` positions of each row at a time; None = as many as are fast. With `log_accuracy` the share of
    targets that were the likeliest token is a part of the losses, which is not learned from.
    """

    def __init__(self, model: Model, *, loss_chunk: int | None = None, log_accuracy: bool = False):
        super().__init__(model)
        self.loss_chunk, self.log_accuracy, self.z_loss = loss_chunk, log_accuracy, model.cfg.z_loss
        self.loss = CrossEntropy()

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "Predictor":
        return cls(model, loss_chunk=cfg.loss_chunk, log_accuracy=cfg.log_accuracy)

    def losses(self, hidden: Hidden, targets: Tensor, *, weights: Tensor | None = None, per: Tensor | None = None,
               ) -> Losses:
        """The losses of targets (b, t); their nats are divided by how many are `per` (b, t), None = by their number.

        With weights (b, t) each target's nats count so many times. A number is at least 1; of several processes, each
        divides by the mean of theirs.
        """
        count = num_targets(targets)
        weights = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights
        weights = weights / (count if per is None else at_least_one(per))
        total, own, z = self.summed(partial(self.of_chunk, count), hidden.last, targets, weights,
                                    *self.model.copied(hidden, targets))
        parts = {self.own: own, **({"z": z} if self.z_loss else {})}
        if self.log_accuracy:
            parts["train_accuracy"] = self.num_right(hidden, targets) / count
        parts |= hidden.losses
        return Losses(sum(hidden.losses.values(), total), {name: part.detach() for name, part in parts.items()})

    def of_chunk(
        self, count: Tensor, last: Tensor, targets: Tensor, weights: Tensor, *copied: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The total of a chunk, its weighted nats, and its squares of logsumexp over the number of targets."""
        nats, logsumexp = self.loss(self.allowed(self.model.head(last)), targets, *copied)
        own, z = (nats * weights).sum(), logsumexp.square().sum() / count
        return own + self.z_loss * z if self.z_loss else own, own, z

    def summed(self, call: Callable[..., Sequence[Tensor]], last: Tensor, *others: Tensor) -> Sequence[Tensor]:
        """The sums of what `call` finds for chunks of positions (b, t, ...); the first has a gradient."""
        if torch.compiler.is_compiling():  # which makes the gradient itself
            found = in_chunks(call, last, *others, size=self.loss_chunk)
            return [torch.stack(each).sum() for each in zip(*found, strict=True)]
        if (size := self.chunk_of(last)) >= last.shape[1]:
            return call(last, *others)
        return sum_of_chunks(call, last, *others, parameters=[*self.model.head.parameters()], size=size)

    def chunk_of(self, last: Tensor) -> int:
        """The positions of states (b, t, d) whose logits exist at a time."""
        return self.loss_chunk or fast_chunk(len(last), self.model.cfg.padded_vocab_size, last.device.type)

    @torch.no_grad()
    def num_right(self, hidden: Hidden, targets: Tensor) -> Tensor:
        """How many targets are the likeliest token, a scalar."""
        predict = partial(Predictor.predict, self)
        return score_hidden(predict, hidden, targets, 1, chunk=self.chunk_of(hidden.last)).right.sum()

    def allowed(self, logits: Tensor) -> Tensor:
        """The logits, minus infinity for tokens that are never predicted. Shape: (b, t, v) -> (b, t, v)."""
        return logits

    def predict(self, hidden: Hidden) -> Tensor:
        """The logits of each position. Shape: (b, t, v)."""
        return self.allowed(self.model.predict(hidden))

    def scores(self, hidden: Hidden, targets: Tensor, top_k: int) -> Scores:
        """How well targets (b, t) are predicted."""
        return score_hidden(self.predict, hidden, targets, top_k, chunk=self.chunk_of(hidden.last))


def fast_chunk(rows: int, vocab_size: int, device_type: str) -> int:
    """The positions of so many rows whose logits are computed fastest: on a CPU they stay in its cache."""
    most = LOGITS.get(device_type, MOST_LOGITS) // vocab_size
    return -(-max(most, FEWEST) // rows)


def in_chunks(call: Callable[..., T], *parts: Tensor, size: int | None) -> list[T]:
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
