"""The delta rule: what a key held is taken out before its new value is written, for all tokens of a chunk at once."""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from modules.precision import full_precision, widen
from modules.scans.channels import running, scores_of_channels
from modules.scans.chunks import Runs, fitting, in_chunks, whole
from modules.scans.decayed import CHUNK, decays_of_heads, factors


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, *,
    runs: Tensor | None = None, chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """y_t = S_t^T q_t with S_t = S' + beta_t k_t (v_t - S'^T k_t)^T, S' = diag(e^{g_t}) S_{t-1}, g <= 0, for each head.

    Yang et al. 2024, arXiv:2406.06484 and arXiv:2412.06464 (a decay for a head); Kimi Team 2025, arXiv:2510.26692
    (for each channel of a key). Keys have length 1 if beta may be above 1.

    Shape: q and k (b, h, t, n), v (b, h, t, p), g (b, h, t) or (b, h, t, n), beta (b, h, t), state (b, h, n, p)
    -> (b, h, t, p) in the dtype of v, (b, h, n, p) in float32.
    """
    return erase_and_write(q, k, v * beta.unsqueeze(-1).to(v.dtype), g, k * beta.unsqueeze(-1).to(k.dtype), state,
                           runs=runs, chunk=chunk)


def erase_and_write(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, erase: Tensor, state: Tensor | None = None, *,
    runs: Tensor | None = None, chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """y_t = S_t^T q_t with S_t = S' + k_t (v_t - S'^T e_t)^T, S' = diag(e^{g_t}) S_{t-1}.

    Shape: as in delta_rule, with erase (b, h, t, n) in place of beta.
    """
    with full_precision(v.device.type):
        wide = [widen(x) for x in (q, k, v, g, erase)]
        state = wide[2].new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]) if state is None else widen(state)
        if v.shape[2] == 1:
            y, state = _step(*(x[:, :, 0] for x in wide), state)
            return y.unsqueeze(2).to(v.dtype), state
        y, state = _erase_in_chunks(*wide, state, runs, fitting(chunk, v.shape[2]))
    return y.to(v.dtype), state


def _step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, erase: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    state = (g.exp().unsqueeze(-1) if g.dim() == 3 else g.exp()[..., None, None]) * state
    state = state + k.unsqueeze(-1) * (v.unsqueeze(-2) - erase.unsqueeze(-2) @ state)
    return (q.unsqueeze(-2) @ state).squeeze(-2), state


def _erase_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, erase: Tensor, state: Tensor, runs: Tensor | None, size: int,
) -> tuple[Tensor, Tensor]:
    t, of_channels = v.shape[2], g.dim() == 4
    q, k, v, g, erase = (in_chunks(x, size) for x in (q, k, v, g, erase))  # (b, h, n, c, ...)
    passes, total = None if runs is None else Runs.of(runs, size), running(g)
    if of_channels:
        read, erased = scores_of_channels(k, total, q, erase)
    else:
        decay = decays_of_heads(total)
        read, erased = q @ k.mT * decay, erase @ k.mT * decay
    if passes is not None:
        read, erased = (x.where(passes.same, 0.0) for x in (read, erased))
    begin, end, through = (x if of_channels else x.unsqueeze(-1) for x in factors(total, passes))
    inverse = inverted(erased.tril(-1))
    states, values, state = carry(through, -inverse @ (erase * begin), inverse @ v, k * end, None, state)
    return whole((q * begin) @ states + read @ values, t), state


def inverted(strict: Tensor) -> Tensor:
    """(I + L)^-1 for a strictly lower triangular L. Shape: (..., c, c) -> the same."""
    eye = torch.eye(strict.shape[-1], dtype=strict.dtype, device=strict.device).expand_as(strict)
    return solved(strict, eye)


def solved(strict: Tensor, y: Tensor) -> Tensor:
    """(I + L)^-1 y for a strictly lower triangular L. Shape: (..., c, c), (..., c, p) -> (..., c, p)."""
    return torch.linalg.solve_triangular(strict, y, upper=False, unitriangular=True)


def low_rank_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, read: Tensor, write: Tensor, state: Tensor | None = None, *,
    runs: Tensor | None = None, chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """y_t = S_t^T q_t with S_t = diag(e^{g_t}) S_{t-1} + w_t (S_{t-1}^T e_t)^T + k_t v_t^T, -0.7 <= g <= 0.

    e, `read`, reads the state before it decays, and w writes that. Peng et al. 2025, arXiv:2503.14456 (RWKV-7).
    Shape: q, k, g, read and write (b, h, t, n), v (b, h, t, p), state (b, h, n, p)
    -> (b, h, t, p) in the dtype of v, (b, h, n, p) in float32.
    """
    with full_precision(v.device.type):
        wide = [widen(x) for x in (q, k, v, g, read, write)]
        state = wide[2].new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]) if state is None else widen(state)
        if v.shape[2] == 1:
            q, k, one, g, read, write = (x[:, :, 0] for x in wide)
            state = (g.exp().unsqueeze(-1) * state + write.unsqueeze(-1) * (read.unsqueeze(-2) @ state)
                     + k.unsqueeze(-1) * one.unsqueeze(-2))
            return (q.unsqueeze(-2) @ state).to(v.dtype), state
        y, state = _low_rank_in_chunks(*wide, state, runs, chunk)
    return y.to(v.dtype), state


def _low_rank_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, read: Tensor, write: Tensor, state: Tensor, runs: Tensor | None,
    size: int,
) -> tuple[Tensor, Tensor]:
    t = v.shape[2]
    q, k, v, g, read, write = (in_chunks(x, size) for x in (q, k, v, g, read, write))
    passes, total = None if runs is None else Runs.of(runs, size), g.cumsum(3)
    before = total - g  # of the tokens before each one
    middle = -0.35 * size  # of any chunk, so that no later token changes the rounding of an earlier one
    rows = torch.cat((q * (total - middle).exp(), read * (before - middle).exp()), dim=3)
    columns = torch.cat((k * (middle - total).exp(), write * (middle - total).exp()), dim=3)
    (own, through_own), (late, through_late) = (half.chunk(2, dim=-1) for half in (rows @ columns.mT).chunk(2, dim=3))
    own, through_own, late, through_late = own.tril(), through_own.tril(), late.tril(-1), through_late.tril(-1)
    begin, end, through = factors(total, passes)
    early = before.exp()
    if passes is not None:
        own, through_own, late, through_late = (
            x.where(passes.same, 0.0) for x in (own, through_own, late, through_late))
        early = early.where(passes.read.unsqueeze(-1), 0.0)
    both = solved(-through_late, torch.cat((late @ v, read * early), dim=-1))
    new, old = both.split((v.shape[-1], k.shape[-1]), dim=-1)
    states, taken, state = carry(through, old, new, write * end, (k * end).mT @ v, state)
    return whole((q * begin) @ states + own @ v + through_own @ taken, t), state


def carry(
    decay: Tensor, w: Tensor, u: Tensor, k: Tensor, added: Tensor | None, state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """From chunk to chunk z = u + w S, S <- decay S + k^T z + added: each S and z, and the last S.

    Shape: decay (b, h, n, n or 1), w and k (b, h, n, c, n), u (b, h, n, c, p), added (b, h, n, n, p) or None = 0,
    state (b, h, n, p) -> states before each chunk (b, h, n, n, p), z (b, h, n, c, p), (b, h, n, p).
    """
    states, z = carried(decay, w.contiguous(), u.contiguous(), k.contiguous(), added, state)
    return states[:, :, :-1], z, states[:, :, -1]


@torch.library.custom_op("shapeshifter::carry", mutates_args=())
def carried(
    decay: Tensor, w: Tensor, u: Tensor, k: Tensor, added: Tensor | None, state: Tensor,
) -> tuple[Tensor, Tensor]:
    """As carry, with the last state after the others. Shape: (b, h, n + 1, n, p), (b, h, n, c, p)."""
    states, z = u.new_empty(*u.shape[:2], u.shape[2] + 1, *state.shape[2:]), torch.empty_like(u)
    states[:, :, 0] = state
    for i in range(u.shape[2]):
        z[:, :, i] = u[:, :, i] + w[:, :, i] @ state
        state = decay[:, :, i].unsqueeze(-1) * state + k[:, :, i].mT @ z[:, :, i]
        state = state if added is None else state + added[:, :, i]
        states[:, :, i + 1] = state
    return states, z


@carried.register_fake
def _(decay, w, u, k, added, state):
    return u.new_empty(*u.shape[:2], u.shape[2] + 1, *state.shape[2:]), torch.empty_like(u)


@torch.library.custom_op("shapeshifter::carry_back", mutates_args=())
def carried_back(decay: Tensor, w: Tensor, k: Tensor, of_states: Tensor, of_z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of u, and of each state, from those of the results. Shape: as the results of `carried`."""
    of_u, found = torch.empty_like(of_z), torch.empty_like(of_states)
    found[:, :, -1] = of_states[:, :, -1]
    for i in reversed(range(of_z.shape[2])):
        later = found[:, :, i + 1]
        of_u[:, :, i] = of_z[:, :, i] + k[:, :, i] @ later
        found[:, :, i] = (of_states[:, :, i] + decay[:, :, i].unsqueeze(-1) * later
                          + w[:, :, i].mT @ of_u[:, :, i])
    return of_u, found


@carried_back.register_fake
def _(decay, w, k, of_states, of_z):
    return torch.empty_like(of_z), torch.empty_like(of_states)


def _keep(ctx, inputs, output) -> None:
    decay, w, _, k, added, _ = inputs
    ctx.with_added = added is not None
    ctx.save_for_backward(decay, w, k, *output)


def _backward(ctx, of_states: Tensor, of_z: Tensor) -> tuple[Tensor | None, ...]:
    decay, w, k, states, z = ctx.saved_tensors
    of_u, found = carried_back(decay, w, k, of_states.contiguous(), of_z.contiguous())
    later, before = found[:, :, 1:], states[:, :, :-1]
    of_decay = (later * before).sum(-1).sum_to_size(decay.shape)
    return (of_decay, of_u @ before.mT, of_u, z @ later.mT, later if ctx.with_added else None, found[:, :, 0])


carried.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.shapeshifter.carry)
def _(decay, w, u, k, added, state, **_) -> int:
    """Of w S and k^T z, from the shapes."""
    b, h, n, c, p = u
    return 4 * b * h * n * c * p * w[-1]
