"""Megalodon equals its formulas, written token by token from the authors' code: values, gradients, documents."""

import math

import pytest
import torch
from helpers import randomise, small_config, small_tokens
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm, silu

from config import override
from model import Model
from modules.stream import Context
from modules.timestep_norm import TimestepNorm
from presets import load_preset, tiny
from tools import shapes, trace

MEGALODON = {"mixer": "cema", "residual": "two_hop", "mlp": "glu", "activation": "silu", "norm": "layer",
             "norm_bias": True, "norm_eps": 0.01, "rope.layout": "interleaved", "final_norm_groups": 4,
             "cema.state_dim": 3, "cema.num_heads": 2, "cema.qk_dim": 8, "cema.value_dim": 10, "cema.chunk": 5,
             "cema.norm_groups": 3, "cema.norm_eps": 0.02}


def plain_norm(part: TimestepNorm, x: Tensor) -> Tensor:
    """By Welford's updates: of each group of channels the mean and variance of all tokens so far."""
    groups = x.view(len(x), part.num_groups, -1)
    mean = variance = torch.zeros_like(groups[0, :, :1])
    found = []
    for t, token in enumerate(groups):
        own = token.mean(-1, keepdim=True)
        spread = ((token - own) ** 2).mean(-1, keepdim=True)
        variance = (t * variance + spread) / (t + 1) + t * (own - mean) ** 2 / (t + 1) ** 2
        mean = mean + (own - mean) / (t + 1)
        found.append(((token - mean) / (variance + part.eps).sqrt()).flatten())
    return torch.stack(found) * part.scale + part.bias


def plain_cema(part: nn.Module, x: Tensor) -> Tensor:
    alpha, delta, n = part.alpha[..., 0].sigmoid(), part.delta[..., 0].sigmoid(), part.alpha.shape[1]
    angle = torch.arange(1, n + 1) * part.theta.sigmoid().unsqueeze(1) * 2 * math.pi / n
    q, gamma = torch.polar(1 - alpha * delta, angle), torch.view_as_complex(part.gamma) / math.sqrt(n)
    h, found = torch.zeros_like(q), []
    for token in x:
        h = q * h + alpha * token.unsqueeze(1)
        found.append((gamma * h).sum(1).real + part.omega * token)
    return torch.stack(found)


def turned(x: Tensor, place: int) -> Tensor:
    """A vector of one head (p,) at a place in its chunk: neighbours are a complex number."""
    pairs = torch.view_as_complex(x.view(-1, 2))
    angles = place * 10_000.0 ** -(torch.arange(len(pairs)).double() / len(pairs))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten()


def plain_mixer(part: nn.Module, x: Tensor) -> Tensor:
    """Of one text (t, d)."""
    x = plain_norm(part.timestep_norm, x)
    m = rms_norm(plain_cema(part.cema, x), x.shape[-1:], part.norm.scale, 0.02)
    z, v, r = part.z(m), silu(part.v(x)), silu(part.gate(m))
    outputs = []
    for head in range(2):
        own, values = slice(4 * head, 4 * head + 4), v[:, 5 * head:5 * head + 5]
        normal = rms_norm(z[:, own], (4,), None, 0.02)
        q, k = (normal * scale[own] / 2 + shift[own] for scale, shift in zip(part.scales, part.shifts, strict=True))
        rows = []
        for t in range(len(x)):
            seen = range(t // 5 * 5, t + 1)
            scores = torch.stack([turned(q[t], t % 5) @ turned(k[s], s % 5) for s in seen])
            rows.append(scores.softmax(0) @ values[list(seen)])
        outputs.append(torch.stack(rows))
    from_m, from_o = part.out.weight.split((x.shape[1], 10), dim=1)
    return m @ from_m.T + (torch.cat(outputs, dim=1) * r) @ from_o.T + part.out.bias


def plain(model: Model, tokens: Tensor) -> Tensor:
    """The logits of one text (t,)."""
    x = model.embed.tokens.weight[tokens]
    for block in model.blocks:
        y = x + plain_mixer(block["mixer"].branch, x)
        norm, mlp = block["mlp"].norm, block["mlp"].branch
        z = layer_norm(y, y.shape[-1:], norm.scale, norm.bias, 0.01)
        x = x + mlp.out(silu(mlp.gate(z)) * mlp.up(z))
    return plain_norm(model.norm, x) @ model.head.unembed.weight.T


def made(**flags) -> Model:
    return randomise(Model(small_config(**MEGALODON | flags)).double(), std=0.4).eval()


def with_gradients(model: Model, logits: Tensor) -> list[Tensor]:
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).double()
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), list(model.parameters()))]


def assert_alike(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-7) -> None:
    """Angles of RoPE are in float32."""
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("t", [1, 23])
def test_the_model_is_its_formulas_in_values_and_gradients(t):
    model, tokens = made(), small_tokens(1, t)
    assert_alike(with_gradients(model, model(tokens)), with_gradients(model, plain(model, tokens[0]).unsqueeze(0)))


def test_documents_of_a_row_are_texts_of_their_own():
    model, tokens, lengths = made(), small_tokens(1, 20), (3, 1, 16)
    ids = torch.arange(3).repeat_interleave(torch.tensor(lengths)).unsqueeze(0)
    expected = torch.cat([plain(model, text) for text in tokens[0].split(lengths)])
    assert_alike(with_gradients(model, model(tokens, documents=ids)),
                 with_gradients(model, expected.unsqueeze(0)))


@pytest.mark.parametrize("changes", [
    {"cema.num_heads": 1}, {"cema.chunk": 4}, {"cema.norm_groups": 4}, {"cema.norm_eps": 1e-5},
    {"final_norm_groups": 3}, {"norm_eps": 1e-5}, {"rope.layout": "half"}, {"rope.theta": 100.0},
    {"position": "none", "rope.layout": "half"}, {"residual": "pre"},
], ids=str)
def test_a_flag_that_is_another_gives_another_model(changes):
    model, tokens = made(), small_tokens(1, 9)
    other = Model(override(model.cfg, changes)).double()
    other.load_state_dict(model.state_dict())
    assert (other(tokens) - plain(model, tokens[0])).abs().max() > 1e-4


def test_the_norm_over_time_keeps_its_digits_far_from_zero():
    norm = TimestepNorm(6, num_groups=2, eps=1e-5)
    x = 100 + torch.randn(1, 300, 6, generator=torch.Generator().manual_seed(0))
    cache, context, found = norm.make_cache(300), Context(torch.arange(300)), []
    with torch.no_grad():
        for piece in x.split([1, 200, 99], dim=1):
            found.append(norm(piece, context, cache))
        expected = plain_norm(norm.double(), x[0].double())
    assert (torch.cat(found, dim=1)[0] - expected).abs().max() < 1e-4  # sums of squares in float32: 5e-3


def test_the_first_numbers_are_those_of_the_authors():
    torch.manual_seed(0)
    part = Model(small_config(mixer="cema", dim=400)).blocks[0]["mixer"].branch
    shares = part.cema.theta.sigmoid().sort(descending=True).values
    assert torch.allclose(shares, 400 ** (-torch.arange(1, 401) / 400), atol=1e-5)
    assert not torch.equal(part.cema.theta.sigmoid(), shares)
    assert part.cema.gamma[..., 1].abs().max() == 0 and part.cema.omega.abs().max() <= 1
    for drawn, std in ((part.cema.alpha, 0.2), (part.cema.delta, 0.2), (part.cema.gamma[..., 0], 1.0),
                       (part.cema.omega, 0.25)):
        assert drawn.std().item() == pytest.approx(std, rel=0.1)


def test_a_mixer_with_a_norm_of_its_own_has_none_before_it():
    for residual, kept in {"pre": nn.Identity, "two_hop": nn.Identity, "none": nn.Identity}.items():
        blocks = Model(small_config(mixer="cema", residual=residual)).blocks
        assert type(blocks[0]["mixer"].norm) is kept and type(blocks[0]["mlp"].norm) is not nn.Identity
    for residual in ("post", "sandwich", "branch_post"):
        assert type(Model(small_config(mixer="cema", residual=residual)).blocks[0]["mixer"].norm) is not nn.Identity


def test_a_norm_over_time_needs_a_direction_and_groups_that_divide_the_width():
    with pytest.raises(ValueError, match="final_norm_groups=4 is a norm over all tokens so far"):
        Model(small_config(final_norm_groups=4), causal=False)
    with pytest.raises(ValueError, match="final_norm_groups=5 does not divide dim=24"):
        small_config(final_norm_groups=5)
    with pytest.raises(ValueError, match="cema.norm_groups=5 does not divide dim=24"):
        small_config(mixer="cema", **{"cema.norm_groups": 5})
    with pytest.raises(ValueError, match="cema.num_heads=3 does not divide cema.value_dim=10"):
        small_config(mixer="cema", **{"cema.num_heads": 3, "cema.value_dim": 10})


def test_a_trace_finds_nothing_wrong():
    model = made()
    with torch.no_grad(), trace(model) as traced:
        model(small_tokens(1, 20))
    assert "ComplexEMA" in str(traced) and not [call.problem for call in traced.walk() if call.problem]
    assert not [call.problem for call in shapes(model).walk() if call.problem]  # sizes as symbols


def test_the_preset_is_the_model_of_this_page():
    model = tiny(load_preset("megalodon")).model
    words = ("mixer", "residual", "mlp", "activation", "norm", "norm_bias")
    assert {word: getattr(model, word) for word in words} == {word: MEGALODON[word] for word in words}
    assert (model.rope.layout, model.position) == ("interleaved", "rope")
    assert model.norm_eps == model.cema.norm_eps == 1e-5
    assert model.final_norm_groups == model.cema.norm_groups == 8
