"""Texts from a canvas of masks: the tokens after a prompt are all masked, and replaced in some order."""

import math
from collections.abc import Iterator
from itertools import takewhile

import torch
from torch import Tensor

from config import SampleConfig
from generation.sampling import Text, check_finite, distribution, ended, eval_mode, padded
from model import Model


class Canvas:
    """A text and the masks after it, of which the first `block` are filled in now, in `steps` steps."""

    def __init__(self, text: Text, length: int, *, block: int, steps: int, mask_id: int):
        self.text, self.steps, self.mask_id = text, steps, mask_id
        self.tokens = torch.tensor([*text.seen, *[mask_id] * length])
        self.end = len(text.seen) + block

    @property
    def masked(self) -> Tensor:
        """The places that are to be filled in now, counted from the first token that is seen. Shape: (m,)."""
        return (self.tokens[: self.end] == self.mask_id).nonzero().squeeze(-1)

    @property
    def new(self) -> list[int]:
        """The tokens that were filled in."""
        return self.tokens[len(self.text.seen) : self.end].tolist()

    def fill(self, logits: Tensor, cfg: SampleConfig, order: str) -> None:
        """Take a step with the logits of each masked place (m, v)."""
        random, places = self.text.random, self.masked
        visible = self.tokens[self.tokens != self.mask_id].tolist()
        p = distribution(logits, cfg, [visible] * len(places)).double()
        reached = p.cumsum(-1)
        share = torch.rand(len(places), 1, generator=random, dtype=torch.float64)
        drawn = torch.searchsorted(reached, share * reached[:, -1:], right=True).squeeze(-1)
        if order == "confidence":
            sureness = p.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
            chosen = sureness.argsort(descending=True, stable=True)[: -(-len(places) // self.steps)]
        elif order == "first_hitting":
            chosen = torch.randint(len(places), (1,), generator=random)
        else:
            leaves = torch.rand(len(places), generator=random, dtype=torch.float64) < 1 / self.steps
            chosen = leaves.nonzero().squeeze(-1)
        self.tokens[places[chosen]] = drawn[chosen]
        self.steps -= 1


def denoise(
    model: Model, texts: list[Text], cfg: SampleConfig, *, mask_id: int, shift: int, eos_id: int,
    num_ids: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Continue texts as a masked diffusion model does; yields (row, token) for every unfinished row in turn.

    All tokens up to max_new_tokens, or as many as fit into the context, are masked; block after block of
    cfg.denoise.block_len of them is filled in (Nie et al. 2025, arXiv:2502.09992). A step predicts the masked tokens,
    and keeps some: as many as are due of those that it is surest of (`confidence`: Chang et al. 2022,
    arXiv:2202.04200), one (`first_hitting`: Zheng et al. 2024, arXiv:2409.02908), or each with the probability that it
    is unmasked by then (`ancestral`: Sahoo et al. 2024, arXiv:2406.07524). A text that fills the context continues from
    its last half. Each has its own generator; draws are made in float64.
    Raises ValueError for logits that are not finite.
    """
    with eval_mode(model):
        while texts:
            for text, new in zip(texts, _filled(model, texts, cfg, mask_id, shift, num_ids), strict=True):
                yield from taken(text, new, cfg, eos_id)
            texts = [text for text in texts if not ended(text.new, cfg, eos_id)]


def taken(text: Text, new: list[int], cfg: SampleConfig, eos_id: int) -> Iterator[tuple[int, int]]:
    """Append new tokens to a text up to its end; yields (row, token)."""
    for token in takewhile(lambda _: not ended(text.new, cfg, eos_id), new):
        text.tokens.append(token)
        yield text.row, token


def steps_for(number: int, cfg: SampleConfig) -> int:
    """The steps that fill in a number of tokens."""
    return math.ceil(number if cfg.denoise.order == "first_hitting" else number / cfg.denoise.tokens_per_step)


def _filled(
    model: Model, texts: list[Text], cfg: SampleConfig, mask_id: int, shift: int, num_ids: int | None,
) -> list[list[int]]:
    """The next block of each text."""
    own, canvases = cfg.denoise, []
    for text in texts:
        left = cfg.max_new_tokens - len(text.new)
        if len(text.seen) >= text.max_len:
            text.start = len(text.tokens) - max(1, text.max_len // 2)
        length = min(left, text.max_len - len(text.seen))
        block = min(length, own.block_len or length)
        canvases.append(Canvas(text, length, block=block, steps=steps_for(block, cfg), mask_id=mask_id))
    while working := [canvas for canvas in canvases if len(canvas.masked)]:
        for canvas, logits in zip(working, _read(model, working, shift, num_ids), strict=True):
            canvas.fill(logits, cfg, own.order)
    return [canvas.new for canvas in canvases]


@torch.inference_mode()
def _read(model: Model, canvases: list[Canvas], shift: int, num_ids: int | None) -> list[Tensor]:
    """The logits of the masked places of each canvas, of all tokens but the mask. Shape: (m, v) each."""
    tokens, positions = padded([canvas.tokens.tolist() for canvas in canvases])
    logits = check_finite(logits_of(model, tokens, positions))
    return [row[canvas.masked + (tokens.shape[1] - len(canvas.tokens) - shift), :num_ids]
            for row, canvas in zip(logits, canvases, strict=True)]


def logits_of(model: Model, tokens: Tensor, positions: Tensor) -> Tensor:
    """The logits at each place of all tokens but the mask, on the CPU. Shape: (b, t) -> (b, t, v - 1)."""
    device = next(model.parameters()).device
    return model(tokens.to(device), positions=positions.to(device))[..., : model.cfg.vocab_size - 1].cpu()
