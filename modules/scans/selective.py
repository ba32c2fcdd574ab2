"""The scan of Mamba: several decaying states for each channel, which are never there for all tokens at once."""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from modules.precision import full_precision, widen

KEPT = 16  # tokens from one state that is kept for the gradient to the next; those between are computed again


def selective_scan(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, *,
    runs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y_t = c_t . h_t with h_t = e^{step_t a} h_{t-1} + step_t x_t b_t and a < 0, for the n states of each channel.

    Gu & Dao 2023, arXiv:2312.00752, section 3. Time and memory are linear in t: of the states one in 16 is kept.
    Shape: x and step (b, t, i), a (n, i), b and c (b, t, n), state (b, n, i) or None = 0; runs (b, t)
    -> (b, t, i) in the dtype of x, (b, n, i) in float32.
    """
    with full_precision(x.device.type):
        wide = [widen(y).contiguous() for y in (x, step, a, b, c)]
        state = wide[0].new_zeros(len(x), *a.shape) if state is None else widen(state).contiguous()
        if x.shape[1] == 1:
            values, steps, rates, keys, queries = wide
            last = _decay(steps, rates, None, 0) * state + keys.mT * (steps * values)
            return (queries @ last).to(x.dtype), last
        y, last, _ = selective(*wide, state, None if runs is None else same_as_before(runs, wide[0].dtype))
    return y.to(x.dtype), last


def same_as_before(runs: Tensor, dtype: torch.dtype) -> Tensor:
    """1 for a token whose document is that of the token before it, else 0; 1 for the first. Shape: (b, t)."""
    return torch.cat((torch.ones_like(runs[:, :1], dtype=dtype), (runs[:, 1:] == runs[:, :-1]).to(dtype)), dim=1)


def _decay(step: Tensor, a: Tensor, same: Tensor | None, t: int, out: Tensor | None = None) -> Tensor:
    """Of each state at token t. Shape: (b, t, i), (n, i), (b, t) -> (b, n, i)."""
    decay = torch.mul(step[:, t, None], a, out=out).exp_()
    return decay if same is None else decay.mul_(same[:, t, None, None])


def _next(h: Tensor, decay: Tensor, x: Tensor, step: Tensor, b: Tensor, t: int, out: Tensor) -> Tensor:
    """The states after token t, from those before it. Shape: h, decay and out (b, n, i)."""
    torch.mul(b[:, t, :, None], (step[:, t] * x[:, t]).unsqueeze(1), out=out)
    return torch.addcmul(out, decay, h, out=out)


@torch.library.custom_op("shapeshifter::selective", mutates_args=())
def selective(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, same: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and those before tokens 0, KEPT, 2 KEPT, ... Shape: (b, t, i), (b, n, i), (_, b, n, i)."""
    y, kept = torch.empty_like(x), _kept_of(x, state)
    h, decay, other = state.clone(), torch.empty_like(state), torch.empty_like(state)
    for t in range(x.shape[1]):
        if t % KEPT == 0:
            kept[t // KEPT] = h
        h, other = _next(h, _decay(step, a, same, t, decay), x, step, b, t, other), h
        torch.bmm(c[:, t, None], h, out=y[:, t, None])
    return y, h, kept


def _kept_of(x: Tensor, state: Tensor) -> Tensor:
    return x.new_empty(-(-x.shape[1] // KEPT), *state.shape)


@selective.register_fake
def _(x, step, a, b, c, state, same):
    return torch.empty_like(x), torch.empty_like(state), _kept_of(x, state)


@torch.library.custom_op("shapeshifter::selective_back", mutates_args=())
def selective_back(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, kept: Tensor, same: Tensor | None, of_y: Tensor,
    of_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the first six arguments of `selective`."""
    of_x, of_step, of_b, of_c = (torch.empty_like(y) for y in (x, step, b, c))
    of_a, of_h, product = torch.zeros_like(of_last), of_last.clone(), torch.empty_like(of_last)
    states, decays = (x.new_empty(KEPT + more, *of_last.shape) for more in (1, 0))
    for begin in reversed(range(0, x.shape[1], KEPT)):
        states[0] = kept[begin // KEPT]
        end = min(begin + KEPT, x.shape[1])
        for i, t in enumerate(range(begin, end)):
            _next(states[i], _decay(step, a, same, t, decays[i]), x, step, b, t, states[i + 1])
        for t in reversed(range(begin, end)):
            i = t - begin
            of_h.addcmul_(c[:, t, :, None], of_y[:, t, None])
            torch.bmm(states[i + 1], of_y[:, t, :, None], out=of_c[:, t, :, None])
            torch.bmm(of_h, (step[:, t] * x[:, t]).unsqueeze(-1), out=of_b[:, t, :, None])
            of_added = torch.bmm(b[:, t, None], of_h).squeeze(1)  # of step x
            of_h.mul_(decays[i])
            torch.mul(of_h, states[i], out=product)  # of step a
            of_a.addcmul_(product, step[:, t, None])
            of_step[:, t] = product.mul_(a).sum(1).addcmul_(of_added, x[:, t])
            torch.mul(of_added, step[:, t], out=of_x[:, t])
    return of_x, of_step, of_a.sum(0), of_b, of_c, of_h


@selective_back.register_fake
def _(x, step, a, b, c, kept, same, of_y, of_last):
    return tuple(torch.empty_like(y) for y in (x, step, a, b, c, of_last))


def _keep(ctx, inputs, output) -> None:
    *given, _, same = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*given, output[2], same)


def _backward(ctx, of_y: Tensor | None, of_last: Tensor | None, _) -> tuple[Tensor | None, ...]:
    x, step, a, b, c, kept, same = ctx.saved_tensors
    of_y = torch.zeros_like(x) if of_y is None else of_y.contiguous()
    of_last = torch.zeros_like(kept[0]) if of_last is None else of_last.contiguous()
    return (*selective_back(x, step, a, b, c, kept, same, of_y, of_last), None)


selective.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.shapeshifter.selective)
def _(x, step, a, *_, **__) -> int:
    """Of what is written to the states and read from them, from the shapes."""
    b, t, i = x
    return 4 * b * t * i * a[0]
