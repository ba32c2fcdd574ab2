"""Scans over a whole row equal their recurrence, token by token: values, gradients, states, documents, pieces."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from thorough import some
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from modules.scans import (
    decayed_attention,
    decayed_maximum,
    delta_rule,
    diagonal_scan,
    ema,
    erase_and_write,
    low_rank_rule,
    normalised_attention,
    selective_scan,
)
from modules.scans.diagonal import _scan

B, H, N, P = 2, 4, 5, 3
LENGTHS = (1, 2, 31, 32, 33, 75)
DECAYS = {"none": 0.0, "weak": 0.01, "strong": 3.0, "violent": 60.0}


def plain_diagonal(a: Tensor, b: Tensor, *, h: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        found.append(h)
    return torch.stack(found, dim=1), h


def plain_decayed(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, h: Tensor) -> tuple[Tensor, Tensor]:
    q, k = (x.repeat_interleave(v.shape[1] // x.shape[1], dim=1) for x in (q, k))
    g, found = g if g.dim() == 4 else g.unsqueeze(-1), []
    for t in range(v.shape[2]):
        h = g[:, :, t].exp().unsqueeze(-1) * h + torch.einsum("bhn,bhp->bhnp", k[:, :, t], v[:, :, t])
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, :, t], h))
    return torch.stack(found, dim=2), h


def plain_delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, h: Tensor) -> tuple[Tensor, Tensor]:
    return plain_erase(q, k, v * beta.unsqueeze(-1), g, k * beta.unsqueeze(-1), h=h)


def plain_erase(q: Tensor, k: Tensor, v: Tensor, g: Tensor, erase: Tensor, *, h: Tensor) -> tuple[Tensor, Tensor]:
    g, found = g if g.dim() == 4 else g.unsqueeze(-1), []
    for t in range(v.shape[2]):
        h = g[:, :, t].exp().unsqueeze(-1) * h
        new = v[:, :, t] - torch.einsum("bhn,bhnp->bhp", erase[:, :, t], h)
        h = h + torch.einsum("bhn,bhp->bhnp", k[:, :, t], new)
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, :, t], h))
    return torch.stack(found, dim=2), h


def plain_low_rank(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, read: Tensor, write: Tensor, *, h: Tensor,
) -> tuple[Tensor, Tensor]:
    found = []
    for t in range(v.shape[2]):
        taken = torch.einsum("bhn,bhnp->bhp", read[:, :, t], h)
        h = (g[:, :, t].exp().unsqueeze(-1) * h + torch.einsum("bhn,bhp->bhnp", write[:, :, t], taken)
             + torch.einsum("bhn,bhp->bhnp", k[:, :, t], v[:, :, t]))
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, :, t], h))
    return torch.stack(found, dim=2), h


def plain_selective(a: Tensor, x: Tensor, step: Tensor, b: Tensor, c: Tensor, *, h: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for t in range(x.shape[1]):
        h = (step[:, t, None] * a).exp() * h + torch.einsum("bn,bi->bni", b[:, t], step[:, t] * x[:, t])
        found.append(torch.einsum("bn,bni->bi", c[:, t], h))
    return torch.stack(found, dim=1), h


def given_a(a: Tensor, x: Tensor, step: Tensor, b: Tensor, c: Tensor, *state: Tensor, **options) -> tuple:
    """selective_scan, with first what is the same for all tokens."""
    return selective_scan(x, step, a.to(x), b, c, *state, **options)


def plain_ema(
    x: Tensor, log_decay: Tensor, angle: Tensor, p: Tensor, gamma: Tensor, *, h: Tensor,
) -> tuple[Tensor, Tensor]:
    q, (real, imag), found = torch.polar(log_decay.exp(), angle), h.unbind(1), []
    state = torch.complex(real, imag)
    for t in range(x.shape[1]):
        state = q * state + p * x[:, t].unsqueeze(-1)
        found.append((torch.view_as_complex(gamma) * state).real.sum(-1))
    return torch.stack(found, dim=1), torch.stack((state.real, state.imag), dim=1)


def draws(seed: int = 0) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *sizes: torch.randn(*sizes, generator=generator, dtype=torch.float64)


def made(kind: str, t: int, decay: float) -> tuple[Callable, Callable, list[Tensor], Tensor]:
    """A scan, its plain form, their arguments but the state, and a state."""
    draw = draws()
    q, k, v = draw(B, H, t, N), draw(B, H, t, N), draw(B, H, t, P)
    unit = torch.nn.functional.normalize(k, dim=-1)
    of_heads, of_channels = (-decay * draw(*sizes).abs() for sizes in ((B, H, t), (B, H, t, N)))
    beta, state = draw(B, H, t).sigmoid(), draw(B, H, N, P)
    close = torch.nn.functional.normalize(k[:, :, :1] + 0.1 * k, dim=-1)  # keys that are nearly equal
    rates = -draw(N, P).exp()
    mild = of_channels.clamp(min=-0.6)
    return {
        "diagonal": (diagonal_scan, plain_diagonal, [(-decay * draw(B, t, H, P).abs()).exp(), draw(B, t, H, P)],
                     draw(B, H, P)),
        "diagonal, one decay for some": (
            diagonal_scan, plain_diagonal, [(-decay * draw(B, t, H, 1).abs()).exp(), draw(B, t, H, P)], draw(B, H, P)),
        "selective": (partial(given_a, rates), partial(plain_selective, rates), [
            draw(B, t, P), decay * draw(B, t, P).abs(), draw(B, t, N), draw(B, t, N)], draw(B, N, P)),
        "moving averages": (
            partial(ema, chunk=32), plain_ema, [draw(B, t, H), -decay * draw(H, N).abs(), 3 * draw(H, N),
                                                draw(H, N).sigmoid(), draw(H, N, 2)], draw(B, 2, H, N)),
        "heads decay": (decayed_attention, plain_decayed, [q, k, v, of_heads], state),
        "heads decay, shared keys": (decayed_attention, plain_decayed, [q[:, :2], k[:, :2], v, of_heads], state),
        "channels decay": (decayed_attention, plain_decayed, [q, k, v, of_channels], state),
        "delta": (delta_rule, plain_delta, [q, unit, v, of_heads, beta], state),
        "delta, channels decay": (delta_rule, plain_delta, [q, unit, v, of_channels, beta], state),
        "delta, negative eigenvalues": (delta_rule, plain_delta, [q, close, v, of_heads, 1.99 * beta.round()], state),
        "erase and write": (erase_and_write, plain_erase, [q, unit, v, of_channels, unit * draw(B, H, t, N).sigmoid()],
                            state),
        "low rank": (low_rank_rule, plain_low_rank, [q, k, v, mild, -unit, unit * beta.unsqueeze(-1)], state),
    }[kind]


KINDS = ["diagonal", "diagonal, one decay for some", "selective", "moving averages", "heads decay",
         "heads decay, shared keys", "channels decay", "delta", "delta, channels decay",
         "delta, negative eigenvalues", "erase and write", "low rank"]
BEFORE = KINDS[:4]  # those whose axis of time comes before all others but the batch
each_kind = pytest.mark.parametrize("kind", KINDS)


def time_axis(kind: str) -> int:
    return 1 if kind in BEFORE else 2


def pieces(arguments: list[Tensor], lengths: list[int], axis: int) -> list[list[Tensor]]:
    """The arguments of each piece of the row; what has no time is the same for all."""
    split = [x.split(lengths, dim=axis) if x.shape[axis] == sum(lengths) else [x] * len(lengths) for x in arguments]
    return [list(piece) for piece in zip(*split, strict=True)]


def results(call: Callable, arguments: list[Tensor], state: Tensor, **options: Tensor) -> list[Tensor]:
    """What a scan gives, its last state, and the gradient of every argument."""
    given = [x.clone().requires_grad_() for x in (*arguments, state)]
    y, last = call(*given[:-1], given[-1], **options)
    draw = draws(1)
    ((y * draw(*y.shape)).sum() + (last * draw(*last.shape)).sum()).backward()
    return [y.detach(), last.detach(), *(x.grad for x in given)]


def as_plain(plain: Callable) -> Callable:
    return lambda *arguments: plain(*arguments[:-1], h=arguments[-1])


def assert_alike(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        size = other.abs().max().clamp(min=1)
        assert (one - other).abs().max() <= tolerance * size


@each_kind
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("decay", DECAYS)
def test_a_row_at_once_equals_its_recurrence(kind, t, decay):
    call, plain, arguments, state = made(kind, t, DECAYS[decay])
    # of the decay of a channel no more than e^-18 a step counts within a chunk
    tolerance = 1e-6 if decay == "violent" else 1e-10
    assert_alike(results(call, arguments, state), results(as_plain(plain), arguments, state), tolerance)


@each_kind
def test_float32_loses_few_digits(kind):
    call, plain, arguments, state = made(kind, 75, 5.0)
    arguments, state = [x.float().double() for x in arguments], state.float().double()  # as they are in float32
    expected = results(as_plain(plain), arguments, state)
    found = results(call, [x.float() for x in arguments], state.float())
    tolerance = 1e-4 if "eigenvalues" in kind else 1e-5
    assert_alike([x.double() for x in found], expected, tolerance)


@each_kind
def test_pieces_equal_one_pass(kind):
    call, _, arguments, state = made(kind, 75, 1.0)
    axis, found = time_axis(kind), []
    expected, last = call(*arguments, state)
    for piece in pieces(arguments, [40, 1, 1, 33], axis):
        y, state = call(*piece, state)
        found.append(y)
    assert_alike([torch.cat(found, dim=axis), state], [expected, last], 1e-9)


@each_kind
def test_nothing_passes_between_documents(kind):
    call, plain, arguments, state = made(kind, 75, 1.0)
    state, axis, lengths = torch.zeros_like(state), time_axis(kind), ((40, 3, 32), (1, 63, 11))
    runs = torch.stack([torch.arange(3).repeat_interleave(torch.tensor(row)) for row in lengths])

    def each_alone(*given: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for row, cuts in enumerate(lengths):
            own = [x[row:row + 1] if x.shape[axis] == sum(cuts) else x for x in given[:-1]]
            rows.append([plain(*piece, h=given[-1][row:row + 1] * 0) for piece in pieces(own, list(cuts), axis)])
        return (torch.cat([torch.cat([y for y, _ in row], dim=axis) for row in rows]),
                torch.cat([row[-1][1] for row in rows]))

    assert_alike(results(call, arguments, state, runs=runs)[:-1], results(each_alone, arguments, state)[:-1], 1e-9)


@pytest.mark.parametrize("kind", some(KINDS, 3))
def test_a_scan_is_a_few_operations_for_meta_tensors_and_the_compiler(kind):
    call, _, arguments, state = made(kind, 40, 1.0)
    arguments, state = [x.float() for x in arguments], state.float()
    y, last = call(*(x.to("meta") for x in arguments), state.to("meta"))
    expected = call(*arguments, state)
    assert (y.shape, last.shape) == tuple(x.shape for x in expected)
    torch._dynamo.reset()  # else what other kinds have compiled is compared with each new graph
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    assert_alike(list(compiled(*arguments, state)), list(expected), 1e-5)


def test_the_rates_of_a_selective_scan_get_the_gradient_of_its_recurrence():
    (_, _, arguments, state), x = made("selective", 40, 1.0), draws()(N, P)
    found = []
    for scan in (given_a, as_plain(plain_selective)):
        rates = (-x.exp()).requires_grad_()
        y, last = scan(rates, *arguments, state)
        (y.square().sum() + last.square().sum()).backward()
        found.append(rates.grad)
    assert_alike(found[:1], found[1:], 1e-10)


def test_products_of_states_count_as_operations():
    call, _, arguments, state = made("delta", 64, 1.0)
    with FlopCounterMode(display=False) as counter:
        call(*arguments, state)
    assert counter.get_flop_counts()["Global"][torch.ops.shapeshifter.carry] == 4 * B * H * 64 * N * P


def test_chunks_of_a_diagonal_scan_equal_its_loop():
    _, _, (a, b), h = made("diagonal", 75, 1.0)
    for way, order in ((iter, range(75)), (reversed, reversed(range(75)))):
        state, expected = h, torch.empty_like(b)
        for t in order:
            state = expected[:, t] = a[:, t] * state + b[:, t]
        torch.testing.assert_close(_scan(a, b, h, way), expected)


def test_padding_changes_no_state():
    for kind in ("heads decay", "delta"):
        call, _, arguments, state = made(kind, 9, 1.0)
        silent = [x.clone() for x in arguments]
        silent[2][:, :, :4] = 0
        alone = [x[:, :, 4:] for x in arguments]
        y, last = call(*silent, torch.zeros_like(state))
        expected, after = call(*alone, torch.zeros_like(state))
        assert_alike([y[:, :, 4:], last], [expected, after], 1e-9)


@pytest.mark.parametrize("t", LENGTHS)
def test_a_running_maximum_equals_its_recurrence(t):
    draw = draws()
    decay, x, start = -draw(B, H, t).abs(), 2 * draw(B, H, t), draw(B, H)
    x[0, :, :t // 2] = float("-inf")  # as at padding
    runs = (torch.arange(t) * 3 // t).expand(B, t)
    for given in (None, runs):
        m, expected = start, []
        for place in range(t):
            if given is not None and place and runs[0, place] != runs[0, place - 1]:
                m = torch.zeros_like(m)
            m = torch.maximum(decay[:, :, place] + m, x[:, :, place])
            expected.append(m)
        found = decayed_maximum(decay, x, start, runs=given)
        torch.testing.assert_close(found, torch.stack(expected, dim=-1), rtol=1e-12, atol=1e-12)


# ---- weights of any size ----

EPS = 0.3  # large, so that it counts


def gated(t: int, width: float) -> list[Tensor]:
    """q, k, v, log decays and log weights up to +- `width`, as by forget gates before their sigmoid as wide."""
    draw, generator = draws(), torch.Generator().manual_seed(2)
    g, i = ((2 * torch.rand(B, H, t, generator=generator, dtype=torch.float64) - 1) * width for _ in range(2))
    q, k = draw(B, H, t, N), draw(B, H, t, N)
    return [x.float().double() for x in (q, k, draw(B, H, t, P), torch.nn.functional.logsigmoid(g), i)]


def plain_normalised(q: Tensor, k: Tensor, v: Tensor, g: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """As it is published: sums that are scaled by their running maximum, token by token."""
    state, total, m, found = q.new_zeros(len(q), H, N, P), q.new_zeros(len(q), H, N), q.new_zeros(len(q), H), []
    for t in range(q.shape[2]):
        before, m = m, torch.maximum(g[:, :, t] + m, i[:, :, t])
        kept, added = (g[:, :, t] + before - m).exp(), (i[:, :, t] - m).exp()
        state = kept[..., None, None] * state + torch.einsum("bh,bhn,bhp->bhnp", added, k[:, :, t], v[:, :, t])
        total = kept[..., None] * total + added[..., None] * k[:, :, t]
        below = torch.maximum((total * q[:, :, t]).sum(-1).abs(), (-m).exp()) + EPS
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, :, t], state) / below.unsqueeze(-1))
    return torch.stack(found, dim=2), m


def normalised(*arguments: Tensor, **options: Tensor) -> tuple[Tensor, Tensor]:
    y, _, m = normalised_attention(*arguments, eps=EPS, **options)
    return y, m


def with_gradients(call: Callable, arguments: list[Tensor]) -> list[Tensor]:
    given = [x.clone().requires_grad_() for x in arguments]
    y, m = call(*given)
    ((y * draws(1)(*y.shape)).sum() + m.sum()).backward()
    return [y.detach(), m.detach(), *(x.grad for x in given)]


@pytest.mark.parametrize("t", [1, 33, 75])
@pytest.mark.parametrize("width", [1.0, 15.0, 100.0])
def test_weights_of_any_size_equal_their_recurrence(t, width):
    arguments = gated(t, width)
    assert_alike(with_gradients(normalised, arguments), with_gradients(plain_normalised, arguments), 1e-10)


@pytest.mark.parametrize("forget", [3.0, -3.0, 100.0])
def test_float32_loses_few_digits_of_weights_that_it_cannot_hold(forget):
    q, k, v, _, i = gated(75, 100.0)
    g = torch.full_like(i, forget).float().double()
    arguments = [q.abs(), k.abs(), v, torch.nn.functional.logsigmoid(g).float().double(), i]  # no sum near zero
    found = with_gradients(normalised, [x.float() for x in arguments])
    assert_alike([x.double() for x in found], with_gradients(plain_normalised, arguments), 1e-4)


def test_weights_far_below_one_leave_nothing_and_no_gradient_overflows():
    q, k, v, _, _ = gated(75, 1.0)
    small = torch.full((B, H, 75), -100.0, dtype=torch.float64)
    found = with_gradients(normalised, [x.float() for x in (q, k, v, small, small)])
    assert all(x.isfinite().all() for x in found) and found[0].abs().max() < 1e-38


def test_pieces_and_documents_of_weights_of_any_size_equal_one_pass_and_each_alone():
    arguments, state, m, found = gated(75, 100.0), None, None, []
    for piece in pieces(arguments, [40, 1, 1, 33], 2):
        y, state, m = normalised_attention(*piece, state, m, eps=EPS)
        found.append(y)
    whole, last, _ = normalised_attention(*arguments, eps=EPS)
    assert_alike([torch.cat(found, dim=2), state], [whole, last], 1e-9)
    lengths = [40, 3, 32]
    runs = torch.arange(3).repeat_interleave(torch.tensor(lengths)).expand(B, -1)

    def each_alone(*given: Tensor) -> tuple[Tensor, Tensor]:
        rows = [plain_normalised(*piece) for piece in pieces(given, lengths, 2)]
        return torch.cat([y for y, _ in rows], dim=2), rows[-1][1]

    packed = partial(normalised, runs=runs)
    assert_alike(with_gradients(packed, arguments), with_gradients(each_alone, arguments), 1e-9)
    arguments[4][:, :, 39], arguments[4][:, :, 40] = 100.0, -100.0  # e^100 is too large for float32
    assert all(x.isfinite().all() for x in with_gradients(packed, [x.float() for x in arguments]))


def test_weights_of_any_size_are_for_meta_tensors_and_the_compiler_too():
    arguments = [x.float() for x in gated(40, 50.0)]
    expected = normalised(*arguments)
    assert [x.shape for x in normalised(*(x.to("meta") for x in arguments))] == [x.shape for x in expected]
    torch._dynamo.reset()
    assert_alike(list(torch.compile(normalised, backend="aot_eager", fullgraph=True)(*arguments)), list(expected), 1e-5)
