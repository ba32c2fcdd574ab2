"""Moving averages whose decay does not depend on the token: Toeplitz matrices within chunks, states between them."""

from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from modules.precision import full_precision, widen
from modules.scans.chunks import Runs

CHUNK, CHUNK_OF_DOCUMENTS = 64, 16  # documents hide other tokens in each row, so that no product serves all rows


class Parts(NamedTuple):
    """The real and the imaginary part of a complex tensor."""

    real: Tensor
    imag: Tensor

    def last(self) -> "Parts":
        return Parts(self.real[-1], self.imag[-1])

    def times(self, other: "Parts") -> "Parts":
        return Parts(self.real * other.real - self.imag * other.imag, self.real * other.imag + self.imag * other.real)


def ema(
    x: Tensor, log_decay: Tensor, angle: Tensor, p: Tensor, gamma: Tensor, state: Tensor | None = None, *,
    runs: Tensor | None = None, chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """y_t = Re(sum of gamma h_t over n numbers) with h_t = q h_{t-1} + p x_t, q = e^(log_decay + i angle), |q| <= 1.

    Ma et al. 2024, arXiv:2404.08801 (Megalodon), equation 3; without angles Ma et al. 2022, arXiv:2209.10655.

    Shape: x (b, t, d); log_decay, angle and p (d, n); gamma (d, n, 2), a real and an imaginary part; state (b, 2, d, n)
    likewise, or None = 0 -> (b, t, d) in the dtype of x, (b, 2, d, n) in float32.
    """
    with full_precision(x.device.type):
        wide, p, gamma = widen(x), widen(p), Parts(*widen(gamma).unbind(-1))
        d, n = p.shape
        h = Parts(*(wide.new_zeros(x.shape[0], 2, d, n) if state is None else widen(state)).unbind(1))
        if x.shape[1] == 1:
            h = powers_of(widen(log_decay), widen(angle), 1).last().times(h)
            h = Parts(h.real + p * wide[:, 0].unsqueeze(-1), h.imag)
            return gamma.times(h).real.sum(-1).unsqueeze(1).to(x.dtype), torch.stack(h, dim=1)
        t, size = x.shape[1], min(chunk, CHUNK_OF_DOCUMENTS) if runs is not None else chunk
        powers = powers_of(widen(log_decay), widen(angle), min(size, t))
        cuts = (0, t) if t < size else sorted({0, t - t % size, t})  # the last chunk may be shorter
        found = []
        for start, stop in pairwise(cuts):
            own = None if runs is None else runs[:, start:stop]
            if own is not None and start:
                h = Parts(*(part.where((runs[:, start - 1] == own[:, 0]).view(-1, 1, 1), 0.0) for part in h))
            part = wide if stop - start == t else wide[:, start:stop]
            y, h = _in_chunks(part, powers, p, gamma, h, own, min(size, stop - start))
            found.append(y)
        y = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return y.to(x.dtype), torch.stack(h, dim=1)


def powers_of(log_decay: Tensor, angle: Tensor, size: int) -> Parts:
    """q^0 ... q^size, by doubling, which keeps the digits of the angle. Shape: (d, n) -> (size + 1, d, n), twice."""
    step = Parts(log_decay.exp() * angle.cos(), log_decay.exp() * angle.sin())
    found = Parts(torch.ones_like(angle).unsqueeze(0), torch.zeros_like(angle).unsqueeze(0))
    while found.real.shape[0] <= size:
        found = Parts(*(torch.cat(pair) for pair in zip(found, found.times(step), strict=True)))
        step = step.times(step)
    return Parts(*(part[:size + 1] for part in found))


def _in_chunks(
    x: Tensor, powers: Parts, p: Tensor, gamma: Parts, h: Parts, runs: Tensor | None, size: int,
) -> tuple[Tensor, Parts]:
    """The rows of whole chunks, whose number m may be 1. Shape: (b, m size, d), runs (b, m size) -> the same, h."""
    rows, passes = x.shape[0], None if runs is None else Runs.of(runs, size)
    powers = Parts(*(part[:size + 1] for part in powers))
    first, later, through = (Parts(*(part[place] for part in powers)) for place in (slice(-1), slice(1, None), -1))
    kernel = ((gamma.real * p) * first.real - (gamma.imag * p) * first.imag).sum(-1)  # (size, d)
    add = torch.cat([part.flip(0) * p for part in first], dim=-1)  # from a token to the end of its chunk
    add = rearrange(add, "c d n -> d c n")
    given = rearrange(x, "b (m c) d -> d (b m) c", c=size)
    if passes is None:
        y, added = (given @ torch.cat((toeplitz(kernel), add), dim=-1)).split((size, add.shape[-1]), dim=-1)
    else:
        y = rearrange(_shifted(x.unflatten(1, (-1, size)), kernel, passes), "b m c d -> d (b m) c")
        added = (given * rearrange(passes.write, "b 1 m c -> (b m) c")) @ add
    added = rearrange(added, "d (b m) n -> m b d n", b=rows)
    before, h = _states(through, Parts(*added.chunk(2, dim=-1)), h, passes)
    later = gamma.times(later)  # what a state gives to each token
    later = rearrange(torch.cat((later.real, -later.imag), dim=-1), "c d n -> d n c")
    earlier = rearrange(before, "b m d n -> d (b m) n") @ later
    if passes is not None:
        earlier = earlier * rearrange(passes.read, "b 1 m c -> (b m) c")
    return rearrange(y + earlier, "d (b m) c -> b (m c) d", b=rows), h


def toeplitz(kernel: Tensor) -> Tensor:
    """What x is multiplied by in each channel: kernel[i - j] from token j to i. Shape: (c, d) -> (d, c, c)."""
    index = torch.arange(kernel.shape[0], device=kernel.device)
    distance = index - index.unsqueeze(-1)
    return rearrange(kernel[distance.clamp(min=0)].where((distance >= 0).unsqueeze(-1), 0.0), "j i d -> d j i")


def _shifted(x: Tensor, kernel: Tensor, passes: Runs) -> Tensor:
    """The same product, token by token, from those of its own document. Shape: (b, m, c, d) -> (b, m, c, d)."""
    y, size = kernel[0] * x, x.shape[2]
    for back in range(1, size):
        same = passes.same.diagonal(-back, dim1=-2, dim2=-1).squeeze(1).unsqueeze(-1)  # (b, m, c - back, 1)
        part = kernel[back] * x[:, :, :size - back].where(same, 0.0)
        y = y + torch.nn.functional.pad(part, (0, 0, back, 0))
    return y


def _states(through: Parts, added: Parts, h: Parts, passes: Runs | None) -> tuple[Tensor, Parts]:
    """The states before each chunk, and the last.

    Shape: (d, n), (m, b, d, n), (b, d, n) -> (b, m, d, 2 n), (b, d, n).
    """
    found = []
    for chunk, (real, imag) in enumerate(zip(*added, strict=True)):
        found.append(torch.cat(h, dim=-1))
        h = through.times(h)
        if passes is not None:
            h = Parts(*(part.where(passes.through[:, 0, chunk].view(-1, 1, 1), 0.0) for part in h))
        h = Parts(h.real + real, h.imag + imag)
    return torch.stack(found, dim=1), h
