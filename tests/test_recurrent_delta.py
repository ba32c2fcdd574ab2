"""Mixers by the delta rule equal their formula, token by token: values and gradients, and every flag matters."""

from typing import Any

import pytest
import torch
from helpers import small_config, small_model
from torch import Tensor, nn
from torch.nn import functional as F

from config import LayerConfig
from modules.mixers import MIXERS
from modules.stream import Context

B, T, DIM = 2, 37, 24
# the flags of each case, by the word of its mixer
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "deltanet": ("deltanet", {"gate": True, "value_dim": 5}),
    "deltanet, plain": ("deltanet", {"conv_len": None, "neg_eigenvalues": True}),
    "gated_delta": ("gated_delta", {"num_heads": 6, "num_key_heads": 3, "value_dim": 5}),
    "gated_delta, products": ("gated_delta", {
        "num_heads": 4, "num_key_heads": 2, "num_updates": 3, "neg_eigenvalues": True, "gate": False}),
    "kda": ("kda", {"num_heads": 3, "key_dim": 7, "rank": 4, "gate_bias": True}),
    "kda, bounded": ("kda", {"decay_bound": 5.0, "neg_eigenvalues": True, "conv_len": 2}),
    "gdn2": ("gdn2", {"num_heads": 3, "key_dim": 7, "value_dim": 5, "neg_eigenvalues": True}),
}
each_case = pytest.mark.parametrize(("word", "flags"), CASES.values(), ids=CASES)


def made(word: str, flags: dict[str, Any]) -> tuple[nn.Module, LayerConfig]:
    """A mixer with random weights in float64, and the flags of its layer."""
    named = {f"{word}.{name}": value for name, value in flags.items()}
    model = small_model(mixer=word, num_layers=1, **named).double()
    return model.blocks[0]["mixer"].branch, small_config(mixer=word, num_layers=1, **named).at(0)


def text() -> Tensor:
    return torch.randn(B, T, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def convolved(x: Tensor, weight: Tensor | None) -> Tensor:
    """silu(sum of w_i x_{t-i}), spelled out."""
    if weight is None:
        return F.silu(x)
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for back in range(min(len(weight), t + 1)):
            y[:, t] = y[:, t] + weight[back] * x[:, t - back]
    return F.silu(y)


def formula(x: Tensor, p: dict[str, Tensor], cfg: LayerConfig) -> Tensor:
    """The output of a mixer with these parameters, from its definition."""
    own, word = getattr(cfg, cfg.mixer), cfg.mixer
    heads, keys, updates = own.num_heads, own.key_width(DIM), getattr(own, "num_updates", 1)
    of_keys = own.key_heads
    most = 2 if own.neg_eigenvalues else 1
    mixed = convolved(torch.cat([x @ p[f"{name}.weight"].T for name in "qkv"], dim=-1), p.get("conv.weight"))
    q, k, v = mixed.split([of_keys * keys, updates * of_keys * keys, mixed.shape[-1] - (1 + updates) * of_keys * keys],
                          dim=-1)
    q = q.view(B, T, of_keys, keys)
    k, v = k.view(B, T, updates, of_keys, keys), v.view(B, T, updates, heads, -1)
    q, k = (y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
    width, channels = v.shape[-1], word == "gdn2"
    if channels:
        erase = most * (x @ p["strength.erase.weight"].T).sigmoid().view(B, T, 1, heads, keys)
        write = (x @ p["strength.write.weight"].T).sigmoid().view(B, T, 1, heads, width)
    else:
        erase = write = most * (x @ p["strength.beta.weight"].T).sigmoid().view(B, T, updates, heads, 1)
    if word == "deltanet":
        g = x.new_zeros(B, T, heads, 1)
    else:
        low = x if word == "gated_delta" else x @ p["decay.steps.down.weight"].T
        matrix = p["decay.steps.weight" if word == "gated_delta" else "decay.steps.up.weight"]
        steps, rate = (low @ matrix.T + p["decay.dt_bias"]).view(B, T, heads, -1), p["decay.A_log"].exp()[:, None]
        bound = getattr(own, "decay_bound", None)
        g = -rate * F.softplus(steps) if bound is None else -bound * (rate * steps).sigmoid()
    state, outputs = x.new_zeros(B, heads, keys, width), []
    for t in range(T):
        state = g[:, t].exp().unsqueeze(-1) * state
        for u in range(updates):
            key = k[:, t, u].repeat_interleave(heads // of_keys, dim=1)
            held = torch.einsum("bhn,bhnp->bhp", erase[:, t, u] * key, state)
            state = state + torch.einsum("bhn,bhp->bhnp", key, write[:, t, u] * v[:, t, u] - held)
        query = q[:, t].repeat_interleave(heads // of_keys, dim=1) / keys**0.5
        outputs.append(torch.einsum("bhn,bhnp->bhp", query, state))
    y = torch.stack(outputs, dim=1)
    y = (y / (y.square().mean(-1, keepdim=True) + own.norm_eps).sqrt() * p["norm.scale"]).flatten(2)
    if word in ("kda", "gdn2"):
        y = y * (x @ p["gate.down.weight"].T @ p["gate.up.weight"].T + p.get("gate.up.bias", 0)).sigmoid()
    elif own.gate:
        y = y * F.silu(x @ p["gate.weight"].T)
    return y @ p["out.weight"].T


@each_case
def test_a_mixer_equals_its_formula(word, flags):
    mixer, cfg = made(word, flags)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in mixer.named_parameters()}
    x, same = (text().requires_grad_() for _ in range(2))
    y, expected = mixer(x, Context(torch.arange(T))), formula(same, parameters, cfg)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=y.dtype)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-8, atol=1e-10)
    for name, parameter in mixer.named_parameters():
        torch.testing.assert_close(parameter.grad, parameters[name].grad, rtol=1e-8, atol=1e-10)


# another value of each flag that leaves the names and shapes of the parameters
MUTATIONS = [("gated_delta", "neg_eigenvalues", True), ("gated_delta", "norm_eps", 1e-2),
             ("kda", "decay_bound", 3.0), ("kda, bounded", "decay_bound", None), ("gdn2", "neg_eigenvalues", False)]


@pytest.mark.parametrize(("case", "flag", "value"), MUTATIONS)
def test_a_flag_that_moves_no_parameter_still_matters(case, flag, value):
    word, flags = CASES[case]
    (mixer, cfg), (other, _) = made(word, flags), made(word, flags | {flag: value})
    other.load_state_dict(mixer.state_dict())
    expected = formula(text(), dict(mixer.named_parameters()), cfg)
    assert (other(text(), Context(torch.arange(T))) - expected).abs().max() > 1e-4


def test_equal_gates_make_one_rule_of_another():
    """GDN-2 whose gates are one number is KDA, and KDA whose channels decay alike is Gated DeltaNet."""
    gdn2, _ = made("gdn2", {"gate_bias": False})
    kda, cfg = made("kda", {})
    shared = {name: value for name, value in kda.state_dict().items() if "strength" not in name}
    beta = kda.strength.beta.weight
    gates = {f"strength.{name}.weight": beta.repeat_interleave(6, dim=0) for name in ("erase", "write")}
    gdn2.load_state_dict(shared | gates)
    context = Context(torch.arange(T))
    torch.testing.assert_close(gdn2(text(), context), kda(text(), context))

    one = nn.Parameter(torch.randn(4, DIM, dtype=torch.float64)), nn.Parameter(torch.randn(4, dtype=torch.float64))
    with torch.no_grad():
        kda.decay.dt_bias.copy_(one[1].repeat_interleave(6))
    kda.decay.steps = nn.Linear(DIM, DIM, bias=False, dtype=torch.float64)
    kda.decay.steps.weight = nn.Parameter(one[0].repeat_interleave(6, dim=0))
    delta, _ = made("gated_delta", {})
    own = {name: value for name, value in kda.state_dict().items() if not name.startswith(("decay", "gate"))}
    delta.load_state_dict(own | {"decay.steps.weight": one[0], "decay.dt_bias": one[1],
                                 "decay.A_log": kda.decay.A_log,
                                 "gate.weight": kda.gate.up.weight @ kda.gate.down.weight})
    delta.norm.activation = torch.sigmoid
    torch.testing.assert_close(delta(text(), context), kda(text(), context))


@pytest.mark.parametrize("word", ["deltanet", "gated_delta", "kda", "gdn2"])
def test_keys_and_values_follow_the_width_of_the_model(word):
    own = getattr(small_config(mixer=word, dim=768, **{"attention.num_heads": 4}), word)
    assert own.axes(768)["n"] == own.axes(768)["p"] == 192
    mixer = MIXERS[word].from_config(small_config(mixer=word).at(0))
    assert mixer.out.in_features == 24


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"gated_delta.conv_len": 1}, "conv_len=1 has no earlier token"),
    ({"gated_delta.num_key_heads": 3}, "num_key_heads=3 does not divide num_heads=4"),
    ({"kda.rank": 0}, "rank=0 must be above 0"),
])
def test_impossible_numbers_are_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(mixer=next(iter(flags)).partition(".")[0], **flags)
