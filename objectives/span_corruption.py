"""Predict spans of a text that are hidden in it, from the rest."""

from collections.abc import Iterator

import torch
from torch import Tensor

from config import NUM_SENTINELS, SampleConfig, SpansConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text, continue_texts
from model import Model
from objectives.noise import ranks
from objectives.rows import Row
from objectives.seq2seq import Answer, EncoderDecoder, Pair


class SpanCorruption(EncoderDecoder):
    """Mean cross-entropy of hidden spans given the rest, in nats: Raffel et al. 2019, arXiv:1910.10683, 3.1.4 (T5).

    In place of each span the encoder reads a sentinel; the target is sentinel, span, sentinel, span, ..., end. How many
    tokens and spans are hidden follows from the number of tokens, where they are is drawn: both the hidden tokens and
    the others are cut into as many parts, every cut as likely, and these alternate, the first of them visible.
    Sentinels are the ids before `start_id`, counted downward; the end is `start_id`, for a row of a stream has ends of
    texts in it. What precedes the first target of a row is visible.
    """

    own = "span_corruption"

    def __init__(self, model: Model, spans: SpansConfig | None = None, **options):
        super().__init__(model, **options)
        self.spans = spans or SpansConfig()
        counts = [self.spans.counts(length) for length in range(model.cfg.max_seq_len + 1)]
        device = next(model.parameters()).device
        self.register_buffer("counts", torch.tensor(counts, device=device), persistent=False)  # (lengths, 2)

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "SpanCorruption":
        return cls(model, cfg.spans, loss_chunk=cfg.loss_chunk, log_accuracy=cfg.log_accuracy)

    def pair(self, batch: Batch) -> Pair:
        row = Row.of(batch)
        return self.corrupted(row, self.draw(row))

    def draw(self, row: Row) -> Tensor:
        """The tokens that are hidden. Shape: -> (b, t) bool."""
        place = torch.arange(row.tokens.shape[1], device=row.tokens.device)
        first = row.source_len.clamp(min=1) - 1  # the last token before the targets is the first that takes part
        length = (row.positions >= 0).sum(-1) - first
        num_hidden, num_spans = self.counts[length].unbind(-1)
        order = []  # of the visible tokens, then of the hidden ones, those that are none at the end
        for which, size in enumerate((length - num_hidden, num_hidden)):
            part = 2 * parts(row.keys, size, num_spans, len(place), draw=which) + which
            order.append(part.where(place < size.unsqueeze(-1), 2 * len(place)))
        is_hidden = torch.cat(order, dim=1).argsort(dim=-1, stable=True) >= len(place)  # (b, 2 t)
        within = place - first.unsqueeze(-1)  # (b, t)
        there = (within >= 0) & (within < length.unsqueeze(-1))
        return is_hidden.gather(1, within.clamp(min=0)) & there

    def corrupted(self, row: Row, is_hidden: Tensor) -> Pair:
        """The pair of rows whose tokens are hidden as given. Shape: is_hidden (b, t) bool."""
        t = row.tokens.shape[1]
        hidden, spans = self.spans.counts(t)  # at most
        begins = is_hidden & ~torch.nn.functional.pad(is_hidden[:, :-1], (1, 0))
        sentinels = self.start_id - begins.cumsum(-1)
        order, there = to_front((row.positions >= 0) & (begins | ~is_hidden), t - hidden + spans)
        source = sentinels.where(begins, row.tokens).gather(1, order).where(there, 0)
        positions = torch.arange(source.shape[1], device=source.device).where(there, -1)

        def slots(sentinel: Tensor, token: Tensor, end: Tensor) -> Tensor:  # two for each token, and one for the end
            return torch.cat([torch.stack([sentinel, token], dim=-1).flatten(1), end], dim=1)  # (b, 2 t + 1)

        end = torch.full_like(row.tokens[:, :1], self.start_id)
        order, there = to_front(slots(begins, is_hidden, is_hidden.any(-1, keepdim=True)), hidden + spans + 1)
        tokens = slots(sentinels, row.tokens, end).gather(1, order).where(there, 0)
        counts = slots(begins, is_hidden & row.is_target, end > 0).gather(1, order) & there
        is_text = counts & (order % 2 == 1)
        return Pair(source, positions, self.shifted(tokens), tokens.where(counts, IGNORED),
                    (order // 2 - 1).clamp(0, t - 2), is_text)

    def begin(self, text: Text) -> Answer:
        """A prompt is followed by a span that is hidden."""
        sentinel = self.start_id - 1
        return Answer(text, [*text.tokens[1 - text.max_len:], sentinel], [self.start_id, sentinel])

    def write(
        self, answers: list[Answer], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """The first span of each answer: where the model ends it, it writes `eos_id`."""
        ends = [eos_id, self.start_id - 2, self.start_id]

        def to_end(logits: Tensor) -> Tensor:
            end = logits[:, ends].logsumexp(-1)
            logits = logits.clone()
            logits[:, eos_id] = end
            return logits

        return continue_texts(self.model, answers, cfg, eos_id=eos_id, given=self.given, adapt=to_end,
                              num_ids=num_ids or self.start_id - NUM_SENTINELS)


def parts(keys: Tensor, size: Tensor, number: Tensor, width: int, *, draw: int) -> Tensor:
    """Which part each of `size` tokens is in, if they are cut into `number` parts, none empty, every cut as likely.

    Shape: keys, size, number (b,) -> (b, width), counted from 0; beyond `size` it says nothing.
    """
    place = torch.arange(width, device=keys.device)
    among = (place > 0) & (place < size.unsqueeze(-1))
    begins = (ranks(keys, among, draw=draw) < number.unsqueeze(-1) - 1) & among
    return begins.cumsum(-1)


def to_front(kept: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The places that are kept, in order, and which of these exist. Shape: (b, n) -> (b, width), (b, width) bool."""
    order = (~kept).int().argsort(dim=-1, stable=True)[:, :width]
    return order, kept.gather(1, order)
