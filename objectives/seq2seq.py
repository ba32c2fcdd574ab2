"""Predict a target from a source: the encoder reads the source, the decoder writes the target."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from config import SampleConfig
from data import IGNORED, Batch
from generation.sampling import Text, begin_texts, continue_texts, padded
from model import Hidden, Model
from modules.stream import Source
from objectives.base import Losses, Predictor, Scores
from objectives.rows import Row
from tools import log_io


class Pair(NamedTuple):
    """What the encoder reads, and what the decoder reads and predicts, of each row of a batch.

    `places` are where a target stands in the row's y; `is_text` is False for targets that are no token of the row.
    """

    source: Tensor  # (b, s)
    positions: Tensor  # (b, s), of the source; negative = padding
    given: Tensor  # (b, t)
    targets: Tensor  # (b, t), -100 = none
    places: Tensor  # (b, t)
    is_text: Tensor  # (b, t) bool


class EncoderDecoder(Predictor):
    """An objective of an encoder and a decoder, which differs in the pair that it makes of a row.

    The decoder begins with `start_id`; None = the last id of the vocabulary, which no text has.
    """

    def __init__(self, model: Model, *, start_id: int | None = None, **options):
        super().__init__(model, **options)
        self.start_id = model.cfg.vocab_size - 1 if start_id is None else start_id

    def pair(self, batch: Batch) -> Pair:
        """What is read and predicted of a batch."""
        raise NotImplementedError

    @log_io
    def forward(self, batch: Batch) -> Losses:
        pair = self.pair(batch)
        return self.losses(self.read(pair), pair.targets)

    def read(self, pair: Pair) -> Hidden:
        """The states that predict the targets."""
        return self.model.read(pair.given, source=self.model.encode(pair.source, positions=pair.positions))

    def shifted(self, targets: Tensor) -> Tensor:
        """What the decoder reads before each target, from tokens. Shape: (b, t) -> (b, t)."""
        return torch.nn.functional.pad(targets[:, :-1], (1, 0), value=self.start_id)

    @torch.no_grad()
    def score(self, batch: Batch, *, top_k: int = 1) -> Scores:
        """The nats of each token of the row that is a target, at its place in the row.

        What is drawn follows from the row's tokens alone.
        """
        pair = self.pair(batch._replace(keys=None))
        found = self.scores(self.read(pair), pair.targets, top_k)
        there = pair.is_text.float()
        nats, right = torch.zeros_like(batch.y, dtype=torch.float32), found.right * there.unsqueeze(-1)
        k = right.shape[-1]
        return Scores(
            nats.scatter_add(1, pair.places, found.nats.float() * there),
            nats.unsqueeze(-1).repeat(1, 1, k).scatter_add(1, pair.places.unsqueeze(-1).expand(-1, -1, k), right),
            nats.scatter_add(1, pair.places, there) > 0)

    # ---- texts: the encoder reads the prompt, the decoder writes what follows ----

    def begin(self, text: Text) -> "Answer":
        """The answer to a prompt, before its first token. Of a prompt beyond the context its end is read."""
        return Answer(text, text.tokens[-text.max_len:], [self.start_id])

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        return self.write([self.begin(text) for text in texts], cfg, eos_id=eos_id, num_ids=num_ids)

    def write(
        self, answers: list["Answer"], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """`stream`, of answers that have begun."""
        return continue_texts(self.model, answers, cfg, eos_id=eos_id, num_ids=num_ids, given=self.given)

    def given(self, answers: Sequence["Answer"], _: Tensor) -> dict[str, Source]:
        """What the encoder makes of prompts, of any lengths; their padding is not seen."""
        device = next(self.model.parameters()).device
        tokens, positions = padded([answer.source for answer in answers])
        return {"source": self.model.encode(tokens.to(device), positions=positions.to(device))}

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        """Two tokens of each answer when most is read: at its start, or once it has outgrown the context."""
        answers = [self.begin(text) for text in begin_texts(self.model.cfg, prompts, cfg.seed)]
        if cfg.max_new_tokens >= self.model.cfg.max_seq_len:
            for answer in answers:
                answer.tokens = answer.tokens[:1] * max(1, answer.max_len // 2)
        tokens = self.write(answers, cfg, eos_id=-1)
        for _ in islice(tokens, min(2, cfg.max_new_tokens) * len(prompts)):
            pass
        tokens.close()


class Answer(Text):
    """What a decoder writes after `begin`, its own first tokens; its encoder reads `source`.

    It draws from the generator of its prompt.
    """

    def __init__(self, prompt: Text, source: Sequence[int], begin: Sequence[int]):
        super().__init__(prompt.row, begin, max_len=prompt.max_len, seed=0)
        self.random, self.source = prompt.random, source


class Seq2Seq(EncoderDecoder):
    """Mean cross-entropy of a target given its source, in nats. Sutskever et al. 2014, arXiv:1409.3215; Raffel et al.
    2019, arXiv:1910.10683 (T5).

    The source of a row is what precedes its first target; of a row that is one text, whose first token alone has no
    target, it is the first half. Source and target may each fill a row, and have its length with padding.
    """

    own = "seq2seq"

    def pair(self, batch: Batch) -> Pair:
        row, t = Row.of(batch), batch.x.shape[1]
        place = torch.arange(t, device=batch.x.device)
        length = (row.positions >= 0).sum(-1)
        start = row.source_len.where(row.source_len > 1, (length + 1) // 2).unsqueeze(-1)  # (b, 1), 1 or more
        is_source = place < start
        places = (start + place).clamp(max=t)  # of the targets in the row, which has t + 1 tokens
        there = start + place < length.unsqueeze(-1)
        tokens = row.tokens.gather(1, places).where(there, 0)
        is_text = row.is_target.gather(1, places) & there
        return Pair(row.tokens[:, :t].where(is_source, 0), place.where(is_source, -1), self.shifted(tokens),
                    tokens.where(is_text, IGNORED), places - 1, is_text)
