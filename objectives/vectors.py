"""Noise on vectors: how much of it there is at each step, and the way back from noise to vectors."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from config import SampleConfig
from generation.sampling import Text, check_finite, ended, eval_mode
from objectives.bleu import most_alike

if TYPE_CHECKING:
    from objectives.noised_rows import VectorDenoiser

LARGEST_BETA = 0.999


def signal(num_steps: int, device: torch.device | None = None) -> Tensor:
    """The share of the variance that is not noise after each step, alpha-bar: about 1 - sqrt(t / n + 1e-4).

    It is a product of steps, each of which adds at most 0.999 of noise. Li et al. 2022, arXiv:2205.14217 (`sqrt`).
    Shape: (n,), float64.
    """
    wanted = 1 - (torch.arange(num_steps + 1, dtype=torch.float64, device=device) / num_steps + 1e-4).sqrt()
    betas = (1 - wanted[1:] / wanted[:-1]).clamp(max=LARGEST_BETA)
    return (1 - betas).cumprod(0)


def spaced(num_steps: int, number: int) -> list[int]:
    """So many of the noise steps, the last one first."""
    return [num_steps * k // number - 1 for k in range(number, 0, -1)]


def step_back(x: Tensor, clean: Tensor, now: float, then: float, *, eta: float, noise: Callable[[], Tensor]) -> Tensor:
    """x with as little noise as `then` says, by what it is `clean`: a step of DDIM, or with eta=1 of DDPM.

    `now` and `then` are alpha-bar; `noise` is asked only if eta is above 0. Song et al. 2020, arXiv:2010.02502, eq. 12.
    """
    found = (x - now**0.5 * clean) / (1 - now) ** 0.5
    sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
    x = then**0.5 * clean + max(0.0, 1 - then - sigma**2) ** 0.5 * found
    return x + sigma * noise() if sigma else x


def from_noise(
    clean: Callable[[Tensor, int], Tensor], x: Tensor, *, num_steps: int, number: int, eta: float = 0.0,
    noise: Callable[[], Tensor], anchor: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """What is left of x, noise alone, after `number` steps back, each by what `clean(x, step)` takes it for.

    `anchor` gives back what must stay as it is, after every step.
    """
    kept = signal(num_steps).tolist()
    for step, following in pairwise([*spaced(num_steps, number), -1]):
        then = kept[following] if following >= 0 else 1.0
        x = anchor(step_back(x, clean(x, step), kept[step], then, eta=eta, noise=noise))
    return x


def write(
    objective: "VectorDenoiser", texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Continue texts on rows of noise as long as the context; yields (row, token) for every unfinished row in turn.

    Of cfg.vectors.candidates the one is taken that is most like the others. Padding ends a text as its end does. A text
    that fills the context continues from its last half. Each has its own generator.
    Raises ValueError for more steps than the model has, and for vectors that are not finite.
    """
    if cfg.vectors.steps > objective.num_steps:
        raise ValueError(f"vectors.steps={cfg.vectors.steps} is more than the model's noised_steps="
                         f"{objective.num_steps}: use at most as many")
    with eval_mode(objective.model):
        while texts:
            for text in texts:
                if len(text.seen) >= text.max_len:
                    text.start = len(text.tokens) - max(1, text.max_len // 2)
            rows = [_written(objective, texts, cfg, eos_id, num_ids) for _ in range(cfg.vectors.candidates)]
            for text, *candidates in zip(texts, *rows, strict=True):
                for token in candidates[most_alike(candidates)]:
                    text.tokens.append(token)
                    yield text.row, token
            texts = [text for text in texts if not ended(text.new, cfg, eos_id)]


@torch.inference_mode()
def _written(
    objective: "VectorDenoiser", texts: list[Text], cfg: SampleConfig, eos_id: int, num_ids: int | None,
) -> list[list[int]]:
    """A continuation of each text, to its end or that of the context."""
    own, padding, embed = cfg.vectors, objective.padding, objective.model.embed
    n, device = objective.model.cfg.max_seq_len, embed.tokens.weight.device
    tokens = torch.tensor([text.seen + [padding] * (n - len(text.seen)) for text in texts], device=device)
    lengths = torch.tensor([[len(text.seen)] for text in texts], device=device)
    is_source = (torch.arange(n, device=device) < lengths).unsqueeze(-1)  # (b, n, 1)
    source = embed.tokens(tokens)

    def noise() -> Tensor:
        drawn = (torch.randn(n - len(text.seen), source.shape[-1], generator=text.random) for text in texts)
        return torch.stack([nn.functional.pad(x, (0, 0, n - len(x), 0)) for x in drawn]).to(source)

    def anchor(x: Tensor) -> Tensor:
        return torch.where(is_source, source, x)

    def clean(x: Tensor, step: int) -> Tensor:
        found = check_finite(found_at(objective, x, step))
        return embed.tokens(nearest(found, vectors)) if own.snap else found

    vectors = embed.tokens.weight[: padding + 1]
    x = from_noise(clean, anchor(noise()), num_steps=objective.num_steps, number=own.steps, eta=own.eta, noise=noise,
                   anchor=anchor)
    barred = torch.arange(padding + 1, device=device) >= (padding if num_ids is None else num_ids)
    barred[padding] = not cfg.stop_at_eos
    ids = nearest(x, vectors, barred).cpu()
    return [_cut(text, row[len(text.seen):].tolist(), cfg, eos_id, padding)
            for text, row in zip(texts, ids, strict=True)]


def found_at(objective: "VectorDenoiser", x: Tensor, step: int) -> Tensor:
    """The vectors without noise that the model finds in x at a step. Shape: (b, n, u) -> (b, n, u)."""
    hidden = objective.read(x, torch.full_like(x[:, 0, 0], step))
    return objective.model.head.vectors(hidden.last).type_as(x)


def nearest(x: Tensor, vectors: Tensor, barred: Tensor | None = None) -> Tensor:
    """The numbers of the nearest of the vectors (v, u) that are not barred (v,). Shape: (b, n, u) -> (b, n)."""
    half = vectors.square().sum(-1) / 2
    half = half if barred is None else half.masked_fill(barred, float("inf"))
    return torch.stack([(row @ vectors.mT - half).argmax(-1) for row in x])  # |x - e|^2 = |x|^2 - 2 (x e - |e|^2 / 2)


def _cut(text: Text, new: list[int], cfg: SampleConfig, eos_id: int, padding: int) -> list[int]:
    """The new tokens of a text up to its end."""
    new = [eos_id if token == padding else token for token in new[: cfg.max_new_tokens - len(text.new)]]
    return new[: new.index(eos_id) + 1] if cfg.stop_at_eos and eos_id in new else new


def rehearse(objective: "VectorDenoiser", num_texts: int) -> None:
    """A step of writing so many texts, with all that takes memory in it."""
    vectors = objective.model.embed.tokens.weight
    with torch.inference_mode():
        x = torch.zeros(num_texts, objective.model.cfg.max_seq_len, vectors.shape[1]).to(vectors)
        kept = [x, x + 0.0, objective.model.embed.tokens(nearest(found_at(objective, x, 0), vectors))]
        del kept
