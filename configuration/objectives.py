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


class Facts(NamedTuple):
    """What the rest of the project must know of an objective."""

    causal: bool = True  # False: every position of the model sees all others
    looks_ahead: bool = False  # a position sees some or all later ones
    likelihood: Likelihood = "exact"
    of: str = ""  # the part of a text whose losses they are; "" = all of it
    num_ids: int = 0  # ids it needs beside the tokenizer's; they are the last ones of the vocabulary
    room: int = 0  # tokens that the model reads beside those of a row: the one after them, or ids of its own
    one_text: bool = False  # it takes the tokens of a row as one text
    denoises: bool = False  # texts come from a canvas of masks, by sample.denoise
    noised: bool = False  # the model reads vectors of tokens with noise: model.noised; texts come from them, by sample.vectors

    @property
    def meaning(self) -> str:
        """What its losses are, if not those of the whole text; else ""."""
        return ", ".join(["an upper bound"] * (self.likelihood == "bound") + [f"of {self.of}"] * bool(self.of))

    @property
    def sign(self) -> str:
        """What stands before bits per byte: ≤ if they are a bound, ≠ if they are not those of the text."""
        return "≤ " if self.likelihood == "bound" else "≠ " if self.of else ""


# word of train.objective -> what it is like
FACTS = {
    "next_token": Facts(),
    "masked_diffusion": Facts(causal=False, looks_ahead=True, likelihood="bound", num_ids=1, room=1, one_text=True,
                              denoises=True),
    "diffuseq": Facts(causal=False, looks_ahead=True, likelihood="none", of="tokens recovered from vectors with noise",
                      num_ids=1, room=1, one_text=True, noised=True),
}


@flags
class DiffusionConfig:
    """The numbers of objective=masked_diffusion."""

    weight: Weighting = "none"  # of a masked token in training: none, or that of the bound, 1 / the share of masked tokens, which learns slower (arXiv:2602.15014). Evaluation takes the bound
    shift: bool = False  # the output at a token predicts the next one, as in a causal model whose weights it begins with. arXiv:2508.15487
    min_share: float = 1e-3  # of the tokens of a row that are masked in training, at least, on average
    estimate: Estimate = "masks"  # how an evaluation finds the bound: by masks of numbers spread evenly from one token to all, or by whole orders of predicting a token after another, each as many passes as there are tokens
    draws: int = 8  # masks, or orders, of each row in an evaluation

    def __post_init__(self):
        require_positive(self, "draws")
        require_between(self, "min_share", high=0.5)


@flags
class DenoiseConfig:
    """How a text comes from a canvas of masks: objective=masked_diffusion."""

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
