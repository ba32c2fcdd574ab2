"""RWKV-7 equals its recurrence, written token by token from the authors' code: values, gradients, states, documents."""

import math

import pytest
import torch
from helpers import randomise, small_config, small_tokens
from torch import Tensor, nn
from torch.nn.functional import group_norm, layer_norm, normalize

from config import ModelConfig, override
from model import Model
from presets import load_preset, tiny
from tools import trace

RWKV7 = {"mixer": "rwkv7", "num_layers": 3, "norm": "layer", "norm_bias": True, "token_shift": ("mlp",),
         "embed_norm": True, "position": "none", "rwkv7.num_heads": 2, "rwkv7.head_dim": 7, "rwkv7.decay_rank": 5,
         "rwkv7.rate_rank": 6, "rwkv7.value_rank": 4, "rwkv7.gate_rank": 3, "rwkv7.norm_eps": 0.1}
HEADS, WIDTH, EPS = 2, 7, 0.1


def plain_mixer(part: nn.Module, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of one text (t, d): the output, the values of the first layer, and the last state (h, value, key)."""
    earlier = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
    x_r, x_w, x_k, x_v, x_a, x_g = (x + (earlier - x) * share for share in part.shares)
    r, k, v = x_r @ part.r.weight.T, x_k @ part.k.weight.T, x_v @ part.v.weight.T
    w = part.decay_bias + torch.tanh(x_w @ part.decay.down) @ part.decay.up
    w = torch.exp(-torch.exp(-nn.functional.softplus(-w) - 0.5))
    if first is None:
        first = v
    else:
        v = v + (first - v) * torch.sigmoid(part.first.bias + x_v @ part.first.share.down @ part.first.share.up)
    a = torch.sigmoid(part.rate_bias + x_a @ part.rate.down @ part.rate.up)
    gate = torch.sigmoid(x_g @ part.gate.down) @ part.gate.up
    unit = normalize((k * part.unit_scale).view(-1, HEADS, WIDTH), dim=-1)
    k = k * (1 + (a - 1) * part.rate_share)
    r, w, k, v, a, own = (y.view(-1, HEADS, WIDTH) for y in (r, w, k, v, a, part.own))
    state, found = torch.zeros(HEADS, WIDTH, WIDTH, dtype=x.dtype), []
    for t in range(len(x)):
        read, taken = -unit[t].unsqueeze(-1), (unit[t] * a[t]).unsqueeze(-2)
        state = state * w[t].unsqueeze(-2) + state @ read @ taken + v[t].unsqueeze(-1) @ k[t].unsqueeze(-2)
        found.append((state @ r[t].unsqueeze(-1)).flatten())
    y = group_norm(torch.stack(found), HEADS, part.norm_scale, part.norm_bias, eps=EPS)
    y = y + ((r * k * own).sum(-1, keepdim=True) * v).flatten(1)
    return (y * gate) @ part.out.weight.T, first, state


def plain(model: Model, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Of one text (t,): the logits, and the last states."""
    def norm(part: nn.Module, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], part.scale, part.bias, model.cfg.norm_eps)

    x, first, states = norm(model.embed.norm, model.embed.tokens.weight[tokens]), None, []
    for block in model.blocks:
        y, first, state = plain_mixer(block["mixer"].branch, norm(block["mixer"].norm, x), first)
        x, states = x + y, [*states, state]
        z, shift, mlp = norm(block["mlp"].norm, x), block["mlp"].branch.conv, block["mlp"].branch.part
        z = z + (torch.cat((torch.zeros_like(z[:1]), z[:-1])) - z) * shift.share
        x = x + torch.relu(z @ mlp.up.weight.T) ** 2 @ mlp.out.weight.T
    return norm(model.norm, x) @ model.head.unembed.weight.T, states


def made(**flags) -> Model:
    return randomise(Model(small_config(**RWKV7 | flags)).double(), std=0.4).eval()


def with_gradients(model: Model, logits: Tensor) -> list[Tensor]:
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).double()
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), list(model.parameters()))]


def assert_alike(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-9) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("t", [1, 33])
def test_the_model_is_its_recurrence_in_values_gradients_and_states(t):
    model, tokens = made(), small_tokens(1, t)
    cache = model.make_cache(t)
    expected, states = plain(model, tokens[0])
    assert_alike(with_gradients(model, model(tokens)), with_gradients(model, expected.unsqueeze(0)))
    with torch.no_grad():
        model(tokens, cache=cache)
    assert_alike([layer["mixer"].held["S"][0].mT for layer in cache.layers], states)


def test_documents_of_a_row_are_texts_of_their_own():
    model, tokens, lengths = made(), small_tokens(1, 40), (3, 1, 36)
    ids = torch.arange(3).repeat_interleave(torch.tensor(lengths)).unsqueeze(0)
    expected = torch.cat([plain(model, text)[0] for text in tokens[0].split(lengths)])
    assert_alike(with_gradients(model, model(tokens, documents=ids)),
                 with_gradients(model, expected.unsqueeze(0)))


@pytest.mark.parametrize("changes", [{"rwkv7.norm_eps": 1e-5}, {"rwkv7.num_heads": 1, "rwkv7.head_dim": 14}], ids=str)
def test_a_number_that_is_another_gives_another_model(changes):
    model, tokens = made(), small_tokens(1, 9)
    other = Model(override(model.cfg, changes)).double()
    other.load_state_dict(model.state_dict())
    assert (other(tokens) - plain(model, tokens[0])[0]).abs().max() > 1e-3


def test_ranks_and_the_width_of_heads_follow_the_width_of_the_model():
    part = Model(override(ModelConfig(), {"mixer": "rwkv7", "dim": 768, "vocab_size": 5})).blocks[1]["mixer"].branch
    ranks = {name: part.get_parameter(f"{name}.down").shape for name in ("decay", "rate", "first.share", "gate")}
    assert ranks == {"decay": (768, 64), "rate": (768, 64), "first.share": (768, 32), "gate": (768, 128)}
    assert part.head_dim == 192


def test_the_first_values_are_those_of_the_authors():
    torch.manual_seed(0)
    part = Model(small_config(**RWKV7, init="fan_in")).blocks[1]["mixer"].branch
    n, i = 14, 4  # channels of all heads, and one of them: the fifth of the first head
    curve, centred = ((4 % 7) - 3) / 3, 4 / 13 - 0.5
    expected = {"decay_bias": -6 + 6 * (4 / (n - 1)) ** (1 + 0.5**0.3) + 0.5 + 2.5 * curve**2,
                "rate_bias": -0.19 + 0.3 * curve**2 + 0.4 * centred, "first.bias": 0.73 - 0.4 * centred,
                "unit_scale": 0.71 - 0.1 * centred, "rate_share": 1.02, "own": -0.04, "norm_scale": (2 / 3) ** 0.7,
                "norm_bias": 0.0}
    for name, value in expected.items():
        assert part.get_parameter(name)[i].item() == pytest.approx(value, abs=1e-6)
    assert part.shares[:, 6].tolist() == pytest.approx(
        [1 - (6 / 24) ** (fall * 2 / 3) for fall in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)])
    assert part.decay.down.abs().max() == 0
    assert torch.allclose(part.decay.up @ part.decay.up.T, 0.01 * torch.eye(5), atol=1e-6)
    assert (part.k.weight.std() / part.v.weight.std()).item() == pytest.approx(0.1, rel=0.2)


def test_the_share_of_the_token_before_falls_as_its_power_says():
    shares = [Model(small_config(**RWKV7, token_shift_power=power)).blocks[1]["mlp"].branch.conv.share[5].item()
              for power in (1.0, 4.0)]
    assert shares == pytest.approx([1 - (5 / 24) ** (2 / 3), 1 - (5 / 24) ** ((2 / 3) ** 4)])


def test_a_trace_finds_nothing_wrong():
    model = made()
    with torch.no_grad(), trace(model) as traced:
        model(small_tokens(1, 40))
    assert "RWKV7" in str(traced) and not [call.problem for call in traced.walk() if call.problem]


def test_layers_that_share_values_have_the_same_heads():
    narrow = {"narrow": {"mixer": "rwkv7", "rwkv7.head_dim": 3}}
    with pytest.raises(ValueError, match="mixer=rwkv7 in layer 1 takes the first values of layer 0, which differs in "
                                         "rwkv7.head_dim"):
        small_config(**RWKV7 | {"layers": ("base", "narrow", "base"), "kinds": narrow})


def test_the_preset_is_the_model_of_this_page():
    model = tiny(load_preset("rwkv7")).model
    chosen = {flag: value for flag, value in RWKV7.items() if not flag.startswith("rwkv7.")} | {"num_layers": 2}
    assert {flag: getattr(model, flag) for flag in chosen} == chosen
    assert (model.mlp, model.activation, model.residual, model.token_shift_power) == ("mlp", "relu2", "pre", 4.0)
    assert math.isclose(model.rwkv7.norm_eps, 64e-5)
