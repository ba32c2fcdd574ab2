"""The objectives: what each is told of the text, what its bits per byte mean, and the groups of their numbers."""

import math
from typing import Any, Literal, NamedTuple

from configuration.checked import flags
from configuration.checks import Acts, require_between, require_positive, words_of
from configuration.tree import get

Likelihood = Literal["exact", "bound", "none"]  # what losses are: -log p, at least as much, or not that of any text
Weighting = Literal["none", "bound"]
Estimate = Literal["masks", "orders"]
Unmasking = Literal["confidence", "first_hitting", "ancestral"]


class Facts(NamedTuple):
    """What the rest of the project must know of an objective."""

    causal: bool = True  # False: every position of the model sees all others
    looks_ahead: bool = False  # a position sees some or all later ones
    likelihood: Likelihood = "exact"
    of: str = ""  # the part of a text whose losses they are; "" = all of it
    num_ids: int = 0  # ids it needs beside the tokenizer's; they are the last ones of the vocabulary
    room: int = 0  # tokens that the model reads beside those of a row: the one after them, or ids of its own
    one_text: bool = False  # it takes the tokens of a row as one text
    rearranges: bool = False  # it trains on rows whose tokens are in another order
    copies: int = 1  # of a row that the model reads in one pass, at the same positions
    denoises: bool = False  # texts come from a canvas of masks, by sample.denoise
    encodes: bool = False  # the model has an encoder, which reads what its batches give as the source

    @property
    def meaning(self) -> str:
        """What its losses are, if not those of the whole text; else ""."""
        return ", ".join(["an upper bound"] * (self.likelihood == "bound") + [f"of {self.of}"] * bool(self.of))

    @property
    def trains_as_evaluated(self) -> bool:
        """Whether the losses of training are those of an evaluation."""
        return not (self.meaning or self.rearranges)

    @property
    def sign(self) -> str:
        """What stands before bits per byte: ≤ if they are a bound, ≠ if they are not those of the text."""
        return "≤ " if self.likelihood == "bound" else "≠ " if self.of else ""


NUM_SENTINELS = 100  # ids that stand for hidden spans, as in T5

# word of train.objective -> what it is like
FACTS = {
    "next_token": Facts(),
    "masked_diffusion": Facts(causal=False, looks_ahead=True, likelihood="bound", num_ids=1, room=1, one_text=True,
                              denoises=True),
    "prefix": Facts(looks_ahead=True, of="the part after a prefix"),
    "fill_in_the_middle": Facts(num_ids=3, room=3, one_text=True, rearranges=True),
    "block_diffusion": Facts(causal=False, looks_ahead=True, likelihood="bound", num_ids=1, room=1, one_text=True,
                             copies=2, denoises=True),
    "masked": Facts(causal=False, looks_ahead=True, likelihood="none", of="masked tokens", num_ids=1, room=1,
                    one_text=True, denoises=True),
    "seq2seq": Facts(of="targets given their sources, of a text without a source its second half given the first",
                     num_ids=1, one_text=True, encodes=True),
    "span_corruption": Facts(of="hidden spans given the rest of the text", num_ids=NUM_SENTINELS + 1, room=1,
                             one_text=True, encodes=True),
    "multi_token": Facts(),
}


@flags
class DiffusionConfig:
    """The numbers of objective=masked_diffusion and block_diffusion."""

    weight: Weighting = "none"  # of a masked token in training: none, or that of the bound, 1 / the share of masked tokens, which learns slower (arXiv:2602.15014). Evaluation takes the bound
    shift: bool = False  # the output at a token predicts the next one, as in a causal model whose weights it begins with. arXiv:2508.15487
    min_share: float = 1e-3  # of the tokens of a row, or block, that are masked in training, at least, on average
    max_share: float = 1.0  # at most, on average. Shares from 0.45 to 0.95, say, are clipped as in arXiv:2503.09573: less noise in the gradient. Evaluation takes all shares
    block_len: int = 4  # block_diffusion: tokens of a block
    estimate: Estimate = "masks"  # how an evaluation finds the bound: by masks of numbers spread evenly from one token to all, or by whole orders of predicting a token after another, each as many passes as there are tokens
    draws: int = 8  # masks, or orders, of each row in an evaluation

    def __post_init__(self):
        require_positive(self, "draws", "block_len")
        require_between(self, "min_share", "max_share")
        if not self.min_share <= self.max_share or self.max_share == 0:
            raise ValueError(f"max_share={self.max_share} must be above 0, and not below min_share={self.min_share}")


@flags
class MaskedConfig:
    """The numbers of objective=masked."""

    rate: float = 0.15  # of the tokens that are chosen to be predicted
    random: float = 0.1  # of the chosen ones, the share that is shown as a random token in training
    keep: float = 0.1  # of the chosen ones, the share that is shown as it is in training

    def __post_init__(self):
        require_between(self, "rate", "random", "keep")
        if self.rate == 0:
            raise ValueError("rate=0 predicts no token: use e.g. 0.15")
        if self.random + self.keep > 1:
            raise ValueError(f"random={self.random} and keep={self.keep} are shares of the chosen tokens, and more "
                             "than 1 together: lower one")


@flags
class FimConfig:
    """The numbers of objective=fill_in_the_middle."""

    rate: float = 0.5  # share of the rows whose middle is moved to the end; arXiv:2207.14255 takes 0.5 to 0.9
    spm_rate: float = 0.5  # share of these in which the suffix precedes the prefix (SPM), which is followed by the middle; in the others the prefix comes first (PSM)

    def __post_init__(self):
        require_between(self, "rate", "spm_rate")


@flags
class SpansConfig:
    """The numbers of objective=span_corruption."""

    rate: float = 0.15  # of the tokens of a row that are hidden
    mean_len: float = 3.0  # tokens of a hidden span, on average

    def __post_init__(self):
        require_between(self, "rate", open_ends=True)
        if not 1 <= self.mean_len < math.inf:
            raise ValueError(f"mean_len={self.mean_len} must be 1 or more, and finite")

    def counts(self, length: int) -> tuple[int, int]:
        """How many of `length` tokens are hidden, in how many spans. Raffel et al. 2019, arXiv:1910.10683."""
        if length < 2:
            return 0, 0
        hidden = min(max(round(length * self.rate), 1), length - 1)
        return hidden, min(max(round(hidden / self.mean_len), 1), length - hidden)


def check_spans(cfg: Any) -> None:
    """Raise ValueError if there are not enough sentinels for the spans of a row, or a target may be too long."""
    length = cfg.row_len + 1
    hidden, spans = cfg.train.spans.counts(length)
    hides = (f"train.spans.rate={cfg.train.spans.rate:g} with train.spans.mean_len={cfg.train.spans.mean_len:g} hides "
             f"{hidden} of model.max_seq_len={length} tokens in {spans} spans")
    if spans > NUM_SENTINELS:
        raise ValueError(f"{hides}, and there are {NUM_SENTINELS} sentinels: give longer spans, or a lower rate")
    if hidden + spans + 1 > length:
        raise ValueError(f"{hides}: these make a target of {hidden + spans + 1} tokens, which must fit in "
                         "model.max_seq_len too; give a lower rate, or longer spans")


@flags
class MultiTokenConfig:
    """The numbers of objective=multi_token."""

    weight: float = 0.3  # of the mean loss of the tokens beyond the next, beside that of the next. arXiv:2412.19437

    def __post_init__(self):
        require_positive(self, "weight")


@flags
class DenoiseConfig:
    """How a text comes from a canvas of masks: objective=masked_diffusion, block_diffusion and masked."""

    order: Unmasking = "confidence"  # which masked tokens a step replaces: those that the model is surest of (arXiv:2202.04200), one at random (arXiv:2409.02908), or each with a probability (arXiv:2406.07524)
    tokens_per_step: float = 2.0  # that a forward pass fills in, on average; order=first_hitting fills in one
    block_len: int | None = 32  # tokens that are filled in before those after them; None = all that fit into the context

    def __post_init__(self):
        require_positive(self, "block_len")
        if not 1 <= self.tokens_per_step < math.inf:
            raise ValueError(f"tokens_per_step={self.tokens_per_step} must be 1 or more, and finite")


DIFFUSIONS = "masked_diffusion", "block_diffusion"
ACTS_OF_OBJECTIVES: dict[tuple[str, ...], Acts] = {
    tuple(f"diffusion.{flag}" for flag in ("weight", "min_share", "max_share", "estimate", "draws")): (
        "objective is masked_diffusion or block_diffusion", lambda c: c.objective in DIFFUSIONS),
    ("diffusion.shift",): ("objective is masked_diffusion", lambda c: c.objective == "masked_diffusion"),
    ("diffusion.block_len",): ("objective is block_diffusion", lambda c: c.objective == "block_diffusion"),
    ("fim.rate", "fim.spm_rate"): (
        "objective is fill_in_the_middle", lambda c: c.objective == "fill_in_the_middle"),
    ("spans.rate", "spans.mean_len"): ("objective is span_corruption", lambda c: c.objective == "span_corruption"),
    ("multi_token.weight",): ("objective is multi_token", lambda c: c.objective == "multi_token"),
    ("masked.rate", "masked.random", "masked.keep"): ("objective is masked", lambda c: c.objective == "masked"),
}
BY_PLACE = "canon", "token_shift", "memory", "attention.key_offset"  # parts that read the token before


def check_copies(cfg: Any, name: str) -> None:
    """Raise ValueError if a part of the model goes by the places of tokens in a row and not by their positions.

    An objective that reads several copies of a row in one pass cannot have one.
    """
    kinds = [(flag, get(layer, flag)) for layer in cfg.by_kind.values() for flag in BY_PLACE]
    for flag, value in [*kinds, ("pointer", cfg.pointer), ("smear", cfg.smear)]:
        if value not in (False, (), "none"):
            said = words_of(value) if isinstance(value, tuple) else value
            raise ValueError(f"{name} reads two copies of a row in one pass, and model.{flag}={said} goes by the places "
                             "of tokens in it: leave it out")
    if any(layer.position == "learned" for layer in cfg.by_kind.values()):
        raise ValueError(f"{name} reads two copies of a row in one pass, which model.position=learned takes for one "
                         "that is too long: use another position")
