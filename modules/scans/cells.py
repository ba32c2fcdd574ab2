"""Recurrent cells whose gates read the state, so that a row goes token by token: one operation with its own backward.

Every cell has four gates for each channel, `gates` = x_t + y_{t-1} R within each head, and states of which the first is
its output y. A cell gives its states after a token, and for the way back factors that are found for all tokens at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from modules.precision import full_precision, widen

States = Sequence[Tensor]  # (h, b, p) each, or (t, h, b, p)
NEVER = float("-inf")


class LSTMCell:
    """c = f c + i tanh(z), y = o tanh(c). Hochreiter & Schmidhuber 1997; forget gates: Gers et al. 2000."""

    starts = (0.0, 0.0)  # y, c

    @staticmethod
    def step(gates: States, states: States) -> States:
        i, f, z, o = gates
        c = torch.addcmul(i.sigmoid() * z.tanh(), f.sigmoid(), states[1])
        return o.sigmoid() * c.tanh(), c

    @staticmethod
    def factors(gates: States, before: States, after: States) -> States:
        i, f, o = (gates[place].sigmoid() for place in (0, 1, 3))
        z, c = gates[2].tanh(), after[1].tanh()
        return (o * (1 - c * c), z * i * (1 - i), before[1] * f * (1 - f), i * (1 - z * z), c * o * (1 - o), f)

    @staticmethod
    def back(dy: Tensor, later: States, factors: States) -> tuple[States, Tensor | None, States]:
        """The gradients of the gates, of y_{t-1} besides its way through the gates, and of the other states."""
        of_c, of_i, of_f, of_z, of_o, kept = factors
        dc = torch.addcmul(later[0], dy, of_c)
        return (dc * of_i, dc * of_f, dc * of_z, dy * of_o), None, (dc * kept,)


class SLSTMCell:
    """c = f c + e^i tanh(z), n = f n + e^i, y = o c / n, where c and n are scaled by e^-m. Beck et al. 2024.

    m = max(log f + m, i) keeps both in range and changes no y, so that no gradient goes through it.
    """

    starts = (0.0, 0.0, 0.0, NEVER)  # y, c, n, m

    @staticmethod
    def step(gates: States, states: States) -> States:
        i, f, z, o = gates
        kept = nn.functional.logsigmoid(f) + states[3]
        m = torch.maximum(kept, i)
        kept, added = (kept - m).exp_(), (i - m).exp_()
        c, n = torch.addcmul(added * z.tanh(), kept, states[1]), torch.addcmul(added, kept, states[2])
        return o.sigmoid() * c / n, c, n, m

    @staticmethod
    def factors(gates: States, before: States, after: States) -> States:
        i, f, z, o = gates
        _, c, n, m = after
        kept, added = (nn.functional.logsigmoid(f) + before[3] - m).exp(), (i - m).exp()
        z, o, mean = z.tanh(), o.sigmoid(), c / n
        of_f = kept * torch.sigmoid(-f)
        return (o / n, -o * mean / n, added * z, added, before[1] * of_f, before[2] * of_f, added * (1 - z * z),
                mean * o * (1 - o), kept)

    @staticmethod
    def back(dy: Tensor, later: States, factors: States) -> tuple[States, Tensor | None, States]:
        of_c, of_n, c_of_i, n_of_i, c_of_f, n_of_f, of_z, of_o, kept = factors
        dc, dn = torch.addcmul(later[0], dy, of_c), torch.addcmul(later[1], dy, of_n)
        di, df = torch.addcmul(dc * c_of_i, dn, n_of_i), torch.addcmul(dc * c_of_f, dn, n_of_f)
        return (di, df, dc * of_z, dy * of_o), None, (dc * kept, dn * kept)


class GRUCell:
    """y = (1 - z) tanh(n + r u) + z y: r resets what u reads of the state. Cho et al. 2014, arXiv:1406.1078.

    The gates are r, z, u and n, of which n reads no state.
    """

    starts = (0.0,)  # y

    @staticmethod
    def step(gates: States, states: States) -> States:
        r, z, u, n = gates
        return (torch.lerp(torch.addcmul(n, r.sigmoid(), u).tanh(), states[0], z.sigmoid()),)

    @staticmethod
    def factors(gates: States, before: States, after: States) -> States:
        r, z, u, n = gates
        r, z = r.sigmoid(), z.sigmoid()
        n = torch.addcmul(n, r, u).tanh()
        return u * r * (1 - r), (before[0] - n) * z * (1 - z), r, (1 - z) * (1 - n * n), z

    @staticmethod
    def back(dy: Tensor, later: States, factors: States) -> tuple[States, Tensor | None, States]:
        of_r, of_z, of_u, of_n, kept = factors
        dn = dy * of_n
        return (dn * of_r, dy * of_z, dn * of_u, dn), dy * kept, ()


CELLS = {"gru": GRUCell, "lstm": LSTMCell, "slstm": SLSTMCell}


def run_cell(
    kind: str, x: Tensor, recurrent: Tensor, states: Tensor | None = None, *, fresh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The outputs of a cell of CELLS, and its states after the row, for a cache: no gradient goes through these.

    `fresh` (b, t) marks the tokens before which there is nothing. Shape: x (b, t, 4, h, p), recurrent (h, p, 4, p),
    states (b, n, h, p) or None -> (b, t, h p) in the dtype of x, (b, n, h, p) in float32.
    """
    wide = rearrange(widen(x), "b t g h p -> t h b (g p)").contiguous()
    matrix = rearrange(widen(recurrent), "h p g q -> h p (g q)")
    t, h, b, _ = wide.shape
    if states is None:
        begin = torch.stack([wide.new_full((h, b, matrix.shape[1]), value) for value in CELLS[kind].starts])
    else:
        begin = rearrange(widen(states), "b n h p -> n h b p").contiguous()
    marks = None if fresh is None else rearrange(fresh, "b t -> t 1 b 1")
    with full_precision(x.device.type):
        y, others, _ = cell(kind, wide, matrix.contiguous(), begin.detach(), marks)
    last = torch.cat((y[-1:], others[:, -1])).detach()
    return rearrange(y, "t h b p -> b t (h p)").to(x.dtype), rearrange(last, "n h b p -> b n h p")


@torch.library.custom_op("shapeshifter::cell", mutates_args=())
def cell(
    kind: str, x: Tensor, recurrent: Tensor, begin: Tensor, fresh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output after each token, the other states, and the gates.

    Shape: x (t, h, b, 4p), recurrent (h, p, 4p), begin (n, h, b, p), fresh (t, 1, b, 1) bool
    -> (t, h, b, p), (n - 1, t, h, b, p), (t, h, b, 4p).
    """
    y, others, gates = _empty(x, begin)
    states = begin.unbind(0)
    for place, row in enumerate(x.unbind(0)):
        if fresh is not None:
            states = _begun(kind, states, fresh[place])
        now = torch.baddbmm(row, states[0], recurrent, out=gates[place])
        states = CELLS[kind].step(now.chunk(4, dim=-1), states)
        for kept, state in zip((y, *others), states, strict=True):
            kept[place] = state
    return y, others, gates


def _empty(x: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = (len(x), *begin.shape[1:])
    return x.new_empty(rows), x.new_empty(len(begin) - 1, *rows), torch.empty_like(x)


def _begun(kind: str, states: States, fresh: Tensor) -> list[Tensor]:
    """The states before tokens, those of `fresh` as at the begin of a text."""
    return [x.masked_fill(fresh, value) for x, value in zip(states, CELLS[kind].starts, strict=True)]


@cell.register_fake
def _(kind: str, x: Tensor, recurrent: Tensor, begin: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(x, begin)


@torch.library.custom_op("shapeshifter::cell_back", mutates_args=())
def cell_back(kind: str, grad: Tensor, recurrent: Tensor, factors: Tensor, fresh: Tensor | None) -> Tensor:
    """The gradient of the gates from that of y.

    Shape: grad (t, h, b, p), recurrent (h, p, 4p), factors (_, t, h, b, p), fresh as in `cell` -> (t, h, b, 4p).
    """
    found, back = grad.new_empty(*grad.shape[:3], 4 * grad.shape[3]), recurrent.mT.contiguous()
    dy, others = torch.zeros_like(grad[0]), [torch.zeros_like(grad[0]) for _ in CELLS[kind].starts[1:3]]
    for place in range(len(grad) - 1, -1, -1):
        parts, direct, others = CELLS[kind].back(grad[place] + dy, others, factors[:, place].unbind(0))
        of_gates = torch.cat(parts, dim=-1, out=found[place])
        dy = torch.bmm(of_gates, back) if direct is None else torch.baddbmm(direct, of_gates, back)
        if fresh is not None:
            dy, *others = (x.masked_fill(fresh[place], 0.0) for x in (dy, *others))
    return found


@cell_back.register_fake
def _(kind: str, grad: Tensor, recurrent: Tensor, factors: Tensor, fresh: Tensor | None) -> Tensor:
    return grad.new_empty(*grad.shape[:3], 4 * grad.shape[3])


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.kind, _, recurrent, begin, fresh = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(recurrent, begin, fresh, *output)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[None, Tensor, Tensor, None, None]:
    recurrent, begin, fresh, y, others, gates = ctx.saved_tensors
    after = (y, *others.unbind(0))
    before = [torch.cat((first.unsqueeze(0), x[:-1])) for first, x in zip(begin, after, strict=True)]
    if fresh is not None:
        before = _begun(ctx.kind, before, fresh)
    factors = torch.stack(CELLS[ctx.kind].factors(gates.chunk(4, dim=-1), before, after))
    of_gates = cell_back(ctx.kind, grad.contiguous(), recurrent, factors, fresh)
    return None, of_gates, torch.einsum("thbp,thbq->hpq", before[0], of_gates), None, None


cell.register_autograd(_backward, setup_context=_keep)


@register_flop_formula([torch.ops.shapeshifter.cell, torch.ops.shapeshifter.cell_back])
def _flops(kind: str, x: Any, recurrent: Any, *_: Any, **__: Any) -> int:
    t, _, b, _ = x
    h, p, q = recurrent
    return 2 * t * h * b * p * q
