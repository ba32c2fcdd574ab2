"""The objectives: what each is told of the text, what its bits per byte mean, and the groups of their numbers."""

import math
from typing import Literal, NamedTuple

from configuration.checked import flags
from configuration.checks import require_between, require_positive

Likelihood = Literal["exact", "bound", "none"]  # what losses are: -log p, at least as much, or not that of any text
Weighting = Literal["none", "bound"]
Estimate = Literal["masks", "orders"]
Unmasking = Literal["confidence", "first_hitting", "ancestral"]
Times = Literal["uniform", "loss"]
Place = Literal["character", "token"]


class Facts(NamedTuple):
    """What the rest of the project must know of an objective."""

    causal: bool = True  # False: every position of the model sees all others
    looks_ahead: bool = False  # a position sees some or all later ones
    likelihood: Likelihood = "exact"
    of: str = ""  # the part of a text whose losses they are; "" = all of it
    from_source: bool = False  # on pairs its losses are of whole targets, whatever `of` says
    num_ids: int = 0  # ids it needs beside the tokenizer's; they are the last ones of the vocabulary
    room: int = 0  # tokens that the model reads beside those of a row: the one after them, or ids of its own
    one_text: bool = False  # it takes the tokens of a row as one text
    rearranges: bool = False  # it trains on rows whose tokens are in another order
    copies: int = 1  # of a row that the model reads in one pass, at the same positions
    denoises: bool = False  # texts come from a canvas of masks, by sample.denoise
    encodes: bool = False  # the model has an encoder, which reads what its batches give as the source
    noised: bool = False  # the model reads vectors of tokens with noise: model.noised; texts come from them, by sample.vectors

    def on(self, *, pairs: bool) -> "Facts":
        """The same on pairs, or on texts."""
        return self._replace(of="") if pairs and self.from_source else self

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
    "prefix": Facts(looks_ahead=True, of="the part after a prefix", from_source=True),
    "fill_in_the_middle": Facts(num_ids=3, room=3, one_text=True, rearranges=True),
    "block_diffusion": Facts(causal=False, looks_ahead=True, likelihood="bound", num_ids=1, room=1, one_text=True,
                             copies=2, denoises=True),
    "masked": Facts(causal=False, looks_ahead=True, likelihood="none", of="masked tokens", num_ids=1, room=1,
                    one_text=True, denoises=True),
    "seq2seq": Facts(of="the second half of each row given the first", from_source=True, num_ids=1, one_text=True,
                     encodes=True),
    "span_corruption": Facts(of="hidden spans given the rest of the text", num_ids=NUM_SENTINELS + 1, room=1,
                             one_text=True, encodes=True),
    "multi_token": Facts(),
    "diffuseq": Facts(causal=False, looks_ahead=True, likelihood="none", of="tokens recovered from vectors with noise",
                      num_ids=1, room=1, one_text=True, noised=True),
}


def is_loss(column: str) -> bool:
    """Whether a column of a log or a table holds losses of validation texts, which are bounds for some objectives."""
    return column.endswith(("val_loss", "bits_per_byte", "bits_over_floor", "perplexity")) and "train" not in column


def facts_of(objective: str, *, block_len: int) -> Facts:
    """What an objective is like; with blocks of one token, each after all before it, block diffusion has exact losses."""
    facts = FACTS[objective]
    return facts._replace(likelihood="exact") if objective == "block_diffusion" and block_len == 1 else facts


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
    cut: Place = "character"  # what the cuts are between: characters, whose parts are encoded anew, so that a prompt may end within a word; or tokens

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


@flags
class DiffuseqConfig:
    """The numbers of objective=diffuseq, besides those of the model."""

    sampling: Times = "uniform"  # how the noise of a row is drawn in training: each step alike, or by the last 10 losses of each once all have them, weighted so that the mean loss stays the same. arXiv:2102.09672
    draws: int = 8  # amounts of noise, spread evenly, of each row in an evaluation

    def __post_init__(self):
        require_positive(self, "draws")


@flags
class VectorsConfig:
    """How a text comes from vectors of noise: objective=diffuseq."""

    steps: int = 20  # forward passes, spread evenly over model.noised_steps (DDIM). arXiv:2010.02502
    eta: float = 0.0  # noise that a step adds, as a share of that of ancestral sampling; with 1 and all steps it is that
    snap: bool = True  # replace what a step predicts by the nearest vectors of tokens
    candidates: int = 1  # texts that are drawn, of which the one is taken that is most like the others by BLEU (MBR)

    def __post_init__(self):
        require_positive(self, "steps", "candidates")
        require_between(self, "eta")
