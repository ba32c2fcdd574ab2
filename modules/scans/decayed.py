"""Linear attention whose state decays, for all tokens of a chunk at once; states pass from chunk to chunk."""

import torch
from torch import Tensor

from modules.precision import full_precision, widen
from modules.scans.channels import running, scores_of_channels
from modules.scans.chunks import Runs, fitting, in_chunks, whole
from modules.scans.diagonal import diagonal_scan

CHUNK = 32


def decayed_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None, *, runs: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """y_t = S_t^T q_t with S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T, g <= 0, for each head.

    Dao & Gu 2024, arXiv:2405.21060, section 6 (a decay for a head); Yang et al. 2023, arXiv:2312.06635 (for each
    channel of a key). Heads may share queries and keys: `g` heads of them, each of h / g heads in a row.

    Shape: q and k (b, g, t, n), v (b, h, t, p), g (b, h, t) or (b, h, t, n), state (b, h, n, p) or None = 0
    -> (b, h, t, p) in the dtype of v, (b, h, n, p) in float32.
    """
    with full_precision(v.device.type):
        wide = [widen(x) for x in (q, k, v, g)]
        if state is None:
            state = wide[2].new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        if v.shape[2] == 1:
            y, state = decayed_step(*(x[:, :, 0] for x in wide), state)
            return y.unsqueeze(2).to(v.dtype), state
        y, state = _in_chunks(*wide, widen(state), runs, fitting(chunk, v.shape[2]))
    return y.to(v.dtype), state


def decayed_step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token. Shape: as in decayed_attention, without the axis t."""
    q, k = (x.repeat_interleave(v.shape[1] // x.shape[1], dim=1) for x in (q, k))
    decay = g.exp().unsqueeze(-1) if g.dim() == 3 else g.exp()[..., None, None]
    state = decay * state + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (q.unsqueeze(-2) @ state).squeeze(-2), state


def _in_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, runs: Tensor | None, size: int,
) -> tuple[Tensor, Tensor]:
    t, shared = v.shape[2], v.shape[1] // k.shape[1]
    q, k, v, g = (in_chunks(x, size) for x in (q, k, v, g))  # (b, h, n, c, ...)
    passes = None if runs is None else Runs.of(runs, size)
    total = running(g)
    scores = scores_of_channels(k, total, q)[0] if g.dim() == 5 else _scores_of_heads(q, k, total, shared)
    if passes is not None:
        scores = scores.where(passes.same, 0.0)
    read, write, through = factors(total, passes)  # (b, h, n, c[, n]), the same, (b, h, n[, n])
    if g.dim() == 5:
        read, write = q * read, k * write
        written, through = write.mT @ v, through.unsqueeze(-1)
    else:
        written = _by_group(k.mT, write.unsqueeze(-1) * v, shared)
        through = through[..., None, None]
    states, state = states_between(through, written, state)
    earlier = read @ states if g.dim() == 5 else read.unsqueeze(-1) * _by_group(q, states, shared)
    return whole(scores @ v + earlier, t), state


def factors(total: Tensor, passes: Runs | None) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from before the chunk to each token, from each token to the end of the chunk, and through the chunk.

    Shape: the running sum of log decays (b, h, n, c) or (b, h, n, c, n) -> twice the same, (b, h, n) or (b, h, n, n).
    """
    last = total[:, :, :, -1]
    read, write, through = total.exp(), (last.unsqueeze(3) - total).exp(), last.exp()
    if passes is not None:
        masks = [mask if total.dim() == 4 else mask.unsqueeze(-1) for mask in passes[1:]]
        read, write, through = (x.where(mask, 0.0) for x, mask in zip((read, write, through), masks, strict=True))
    return read, write, through


def states_between(through: Tensor, written: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and the last.

    Shape: (b, h, n, n or 1, 1), (b, h, n, n, p), (b, h, n, p) -> (b, h, n, n, p), (b, h, n, p).
    """
    after, last = diagonal_scan(through.transpose(1, 2), written.transpose(1, 2), state)
    return torch.cat((state.unsqueeze(1), after[:, :-1]), dim=1).transpose(1, 2), last


def _by_group(x: Tensor, y: Tensor, shared: int) -> Tensor:
    """x @ y, where `shared` heads of y in a row have one of x.

    Shape: (b, g, n, i, j), (b, h, n, j, k) -> (b, h, n, i, k).
    """
    if shared == 1:
        return x @ y
    return (x.unsqueeze(2) @ y.unflatten(1, (-1, shared))).flatten(1, 2)


def _scores_of_heads(q: Tensor, k: Tensor, total: Tensor, shared: int) -> Tensor:
    """q_i k_j e^{G_i - G_j} for j <= i. Shape: (b, g, n, c, _), the same, (b, h, n, c) -> (b, h, n, c, c)."""
    scores = (q @ k.mT).unsqueeze(2)
    return (scores * decays_of_heads(total).unflatten(1, (-1, shared))).flatten(1, 2)


def decays_of_heads(total: Tensor) -> Tensor:
    """e^{G_i - G_j} for j <= i, else 0. Shape: (..., c) -> (..., c, c)."""
    size = total.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1)
    return (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(later, float("-inf")).exp()
