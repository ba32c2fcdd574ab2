"""Write texts with drafts of further tokens that the model itself makes and checks: self-speculative decoding.

The text is that of plain sampling, draw for draw: a draft is kept if it is the token that the model draws at its place.
Stern et al. 2018, arXiv:1811.03115 (greedy); Gloeckle et al. 2024, arXiv:2404.19737, section 3.2.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from config import SampleConfig
from generation.sampling import Text, check_finite, distribution, draw, ended, eval_mode, padded
from model import Model
from modules.ahead import Depth
from modules.rewind import drop_last, mark, rewind
from modules.stream import Context

MOST_TEXTS = 4  # at a time: all of them must draw what was drafted for them
MOST_AGAIN = 8  # tokens that are read again with drafts, in a model with states: then a pass goes without drafts
Pick = Callable[[Tensor, Tensor], Tensor]  # tokens (b, 1) from logits (b, v) and the tokens drafted before (b, k)


def speculate(
    model: Model, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
) -> Iterator[tuple[int, int]]:
    """generation.sampling.continue_texts of a model with parts that predict further tokens, in fewer forward passes.

    Texts that are written together keep as many drafts as the one that keeps fewest.
    """
    with eval_mode(model):
        while texts:
            reader, go_on = Reader(model, texts, cfg, num_ids), True
            while go_on:
                logits, drafts = reader.read()
                for place in range(logits.shape[1]):
                    tokens = draw(distribution(logits[:, place], cfg, [text.tokens for text in texts]), texts)
                    for text, token in zip(texts, tokens, strict=True):
                        text.tokens.append(token)
                        yield text.row, token
                    go_on = not any(ended(text.new, cfg, eos_id) for text in texts)
                    if not go_on or tokens != drafts[:, place : place + 1].flatten().tolist():
                        break
                go_on = not any([text.slide() for text in texts]) and go_on
            texts = [text for text in texts if not ended(text.new, cfg, eos_id)]


class Reader:
    """The caches of texts that are written together, until one of them ends or outgrows the context."""

    def __init__(self, model: Model, texts: list[Text], cfg: SampleConfig, num_ids: int | None):
        self.model, self.texts, self.cfg, self.num_ids = model, texts, cfg, num_ids
        longest = max(len(text.seen) for text in texts)
        self.max_len = min(model.cfg.max_seq_len, longest + cfg.max_new_tokens)
        self.cache, self.drafter = model.make_cache(self.max_len), Drafter(model, self.max_len)
        self.marked, self.states, self.device = None, None, next(model.parameters()).device

    @torch.inference_mode()
    def read(self) -> tuple[Tensor, Tensor]:
        """Make drafts and read all that is new with them; the logits after the text and after each draft.

        Shape: -> (b, k + 1, v), and the drafts (b, k), on the CPU; k is 0 at first.
        """
        tokens, positions = (x.to(self.device) for x in padded([text.seen for text in self.texts]))
        self.take_back(self.cache.length - tokens.shape[1] + 1)
        drafts = self.draft(tokens, positions)
        first, number = self.cache.length, drafts.shape[1]
        self.marked = mark(self.cache)
        after = positions[..., -1:] + 1 + torch.arange(number, device=self.device)
        hidden = self.model.read(torch.cat([tokens[:, first:], drafts], dim=1), cache=self.cache,
                                 positions=torch.cat([positions[..., first:], after], dim=-1))
        self.states = first, hidden.below
        logits = self.model.predict(hidden._replace(last=hidden.last[:, -number - 1:]), self.cache)
        return check_finite(logits[..., : self.model.cfg.vocab_size].cpu())[..., : self.num_ids], drafts.cpu()

    def take_back(self, number: int) -> None:
        """Forget the drafts that are not in the texts: alone, or with all of the last pass, which is read again."""
        if number > 0 and not drop_last(self.cache, number):
            rewind(self.marked)

    def draft(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Guesses of the tokens after the texts, as many as may be used. Shape: (b, t), (b, t) or (t,) -> (b, k)."""
        left = min(self.cfg.max_new_tokens - len(text.new) for text in self.texts) - 1
        number = min(self.model.cfg.ahead_depth, self.max_len - tokens.shape[1], left)
        if self.states is None or number < 1 or tokens.shape[1] - self.cache.length > MOST_AGAIN:
            return tokens[:, :0]
        first, below = self.states
        below = below[:, self.drafter.num_read - first : tokens.shape[1] - 1 - first]
        return self.drafter.draft(below, tokens, positions, self.picker(), number)

    def picker(self) -> Pick:
        """Draws drafts by the numbers that the texts will draw with, so that equal chances give equal tokens."""
        copies = [Draws(text.random.clone_state()) for text in self.texts]

        def pick(logits: Tensor, drafted: Tensor) -> Tensor:
            logits = check_finite(logits[:, : self.model.cfg.vocab_size].cpu())[:, : self.num_ids]
            seen = [text.tokens + new for text, new in zip(self.texts, drafted.tolist(), strict=True)]
            return torch.tensor(draw(distribution(logits, self.cfg, seen), copies), device=self.device).unsqueeze(-1)

        return pick


class Draws:
    """A generator to draw with, as a text has one."""

    def __init__(self, random: torch.Generator):
        self.random = random


class Drafter:
    """The parts of model.ahead, and what each has read of the texts: all that is certain, in its cache.

    The part of depth k reads x[i + k] at position i, so the last k - 1 positions before the newest token depend on
    drafts: they are read, and taken back. `waiting` has the states of positions whose token is still a draft.
    """

    def __init__(self, model: Model, max_len: int):
        self.model, self.ahead = model, model.ahead
        self.caches = self.ahead.make_caches(max_len)
        self.lengths, self.waiting = [0] * len(self.caches), [None] * len(self.caches)

    @property
    def num_read(self) -> int:
        """The positions that the first part has read for good."""
        return self.lengths[0]

    def draft(self, below: Tensor, tokens: Tensor, positions: Tensor, pick: Pick, number: int) -> Tensor:
        """Guesses of the tokens after a text, whose last one the model has not read. Shape: -> (b, number).

        `below` (b, n, d) are what the model made of the others, from `num_read` on; tokens (b, t).
        """
        t, states, certain = tokens.shape[1], below, tokens.shape[1] - 1
        for k in range(1, number + 1):
            first, before = self.lengths[k - 1], certain
            states = states if self.waiting[k - 1] is None else torch.cat([self.waiting[k - 1], states], dim=1)
            certain = max(first, t - k) if self.ahead.reads_tokens else certain
            self.waiting[k - 1] = states[:, certain - first : before - first]
            states, last = self.read(k, states, tokens, positions, certain - first)
            tokens = torch.cat([tokens, pick(self.model.head(last)[:, 0], tokens[:, t:])], dim=1)
        return tokens[:, t:]

    def read(
        self, k: int, states: Tensor, tokens: Tensor, positions: Tensor, num_certain: int,
    ) -> tuple[Tensor, Tensor]:
        """Read the states of depth k, of which so many are certain. Shape: -> (b, n, d), and of the last one (b, 1, d).
        """
        first, cache, drafted = self.lengths[k - 1], self.caches[k - 1], states.shape[1] - num_certain
        marked, made = mark(cache), self.step(k, first, states, tokens, positions, cache)
        if drafted and not drop_last(cache, drafted):
            rewind(marked)  # a state, which reads what is certain again
            if num_certain:
                self.step(k, first, states[:, :num_certain], tokens, positions, cache)
        self.lengths[k - 1] += num_certain
        return made.state, made.last[:, -1:]

    def step(self, k: int, first: int, states: Tensor, tokens: Tensor, positions: Tensor, cache: Any) -> Depth:
        """The part of depth k on the states of positions from `first` on."""
        stop = first + states.shape[1]
        context = Context(positions[..., first:stop], tokens=tokens[:, first + k : stop + k])
        return self.ahead.step(k, states, context.tokens, context, self.model.embed, self.model.norm, cache)
