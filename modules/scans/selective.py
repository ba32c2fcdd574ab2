"""The scan of Mamba: several decaying states for each channel, which are never there for all tokens at once."""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from modules.precision import full_precision, widen

KEPT = 16  # tokens from one state that is kept for the gradient to the next; those between are computed again
AT_ONCE = 1 << 18  # numbers in the states of the tokens that go together; more would leave a processor's cache


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
            last = (steps * rates).exp_() * state + keys.mT * (steps * values)
            return (queries @ last).to(x.dtype), last
        y, last, _ = selective(*wide, state, None if runs is None else same_as_before(runs, wide[0].dtype))
    return y.to(x.dtype), last


def same_as_before(runs: Tensor, dtype: torch.dtype) -> Tensor:
    """1 for a token whose document is that of the token before it, else 0; 1 for the first. Shape: (b, t)."""
    return torch.cat((torch.ones_like(runs[:, :1], dtype=dtype), (runs[:, 1:] == runs[:, :-1]).to(dtype)), dim=1)


def _pieces(state: Tensor, begin: int, t: int) -> list[slice]:
    """The tokens from one whose state is kept to the next, or to the end: one by one, or together if rows are few."""
    size, end = _together(state), min(begin + KEPT, t)
    return [slice(first, min(first + size, end)) for first in range(begin, end, size)]


def _together(state: Tensor) -> int:
    """How many tokens go together, at most. Shape: (b, n, i)."""
    return min(KEPT, max(1, AT_ONCE // state.numel()))


def _fill(
    decays: Tensor, states: Tensor, h: Tensor, some: slice, a: Tensor, x: Tensor, step: Tensor, b: Tensor,
    same: Tensor | None,
) -> Tensor:
    """Write the decays of some tokens, and the states after each, of which the last comes back; h is before them.

    Shape: decays and states (_, b, n, i), h (b, n, i), a (n, i), x and step (t, b, i), b (t, b, n), same (t, b).
    """
    torch.mul(step[some].unsqueeze(2), a, out=decays).exp_()
    if same is not None:
        decays *= same[some, :, None, None]
    torch.mul(b[some].unsqueeze(3), (step[some] * x[some]).unsqueeze(2), out=states)
    for decay, state in zip(decays, states, strict=True):
        h = state.addcmul_(decay, h)
    return h


def _room(state: Tensor) -> Tensor:
    """For the states of tokens that go together."""
    return state.new_empty(_together(state), *state.shape)


def _by_token(*tensors: Tensor | None) -> list[Tensor | None]:
    """Views whose first axis is time. Shape: (b, t, ...) -> (t, b, ...)."""
    return [None if x is None else x.transpose(0, 1) for x in tensors]


def _product(rows: Tensor, matrices: Tensor) -> Tensor:
    """Of a row and a matrix for each token and text. Shape: (_, b, p), (_, b, p, q) -> (_, b, q)."""
    return torch.bmm(rows.flatten(0, 1).unsqueeze(1), matrices.flatten(0, 1)).view(*rows.shape[:2], -1)


@torch.library.custom_op("shapeshifter::selective", mutates_args=())
def selective(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, same: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and those before tokens 0, KEPT, 2 KEPT, ... Shape: (b, t, i), (b, n, i), (_, b, n, i)."""
    y, kept, h = torch.empty_like(x), _kept_of(x, state), state
    x, step, b, c, same, out = _by_token(x, step, b, c, same, y)
    decays, states, others = (_room(state) for _ in range(3))
    for begin in range(0, len(x), KEPT):
        kept[begin // KEPT] = h
        for some in _pieces(state, begin, len(x)):
            states, others, n = others, states, some.stop - some.start
            h = _fill(decays[:n], states[:n], h, some, a, x, step, b, same)
            out[some] = _product(c[some], states[:n])
    return y, h.clone(), kept


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
    found = [torch.empty_like(given) for given in (x, step, b, c)]
    x, step, b, c, same, of_y, of_x, of_step, of_b, of_c = _by_token(x, step, b, c, same, of_y, *found)
    states, decays = (of_last.new_empty(KEPT + more, *of_last.shape) for more in (1, 0))
    of_states, product, of_h = _room(of_last), _room(of_last), of_last.clone()
    of_a = torch.zeros_like(product)
    for begin in reversed(range(0, len(x), KEPT)):
        pieces = [(some, slice(some.start - begin, some.stop - begin)) for some in _pieces(of_last, begin, len(x))]
        h = states[0] = kept[begin // KEPT]
        for some, here in pieces:
            h = _fill(decays[here], states[1:][here], h, some, a, x, step, b, same)
        for some, here in reversed(pieces):
            n = some.stop - some.start
            for i in reversed(range(n)):
                t, place = some.start + i, here.start + i
                torch.addcmul(of_h, c[t].unsqueeze(2), of_y[t].unsqueeze(1), out=of_states[i])
                torch.mul(of_states[i], decays[place], out=of_h)
                torch.mul(of_h, states[place], out=product[i])  # of step a
            of_c[some] = _product(of_y[some], states[1:][here].mT)
            of_b[some] = _product(step[some] * x[some], of_states[:n].mT)
            of_added = _product(b[some], of_states[:n])  # of step x
            of_a[:n].addcmul_(product[:n], step[some].unsqueeze(2))
            of_step[some] = product[:n].mul_(a).sum(2).addcmul_(of_added, x[some])
            torch.mul(of_added, step[some], out=of_x[some])
    of_x, of_step, of_b, of_c = found
    return of_x, of_step, of_a.sum((0, 1)), of_b, of_c, of_h


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
