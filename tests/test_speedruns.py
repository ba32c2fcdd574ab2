"""Models of speedruns equal formulas that are written from their repositories, in logits and gradients.

Both repositories rotate backwards, which is the same with the two channels of a pair the other way round: `swapped`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from helpers import assert_close, randomise, small_tokens
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig, flat, get, override
from configuration.plain import PLAIN_MODEL
from model import Model
from modules.rope import InterleavedRoPE
from presets import load_preset


def norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 2**-23).rsqrt()


def heads(x: Tensor, width: int) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(0, 1)  # (h, t, p)


def weigh(q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
    """Causal attention to the last `window` tokens. Shape: (h, t, p), thrice -> (h, t, p)."""
    t = torch.arange(q.shape[1])
    back = t[:, None] - t
    seen = (back >= 0) & (back < (window or len(t)))
    return (q @ k.mT * scale).masked_fill(~seen, -torch.inf).softmax(-1) @ v


def relu2(mlp: nn.Module, x: Tensor) -> Tensor:
    return F.relu(x @ mlp.up.weight.T).square() @ mlp.out.weight.T


def smeared(model: nn.Module, x: Tensor, channels: int) -> Tensor:
    gate = model.smear.scale * torch.sigmoid(x[1:, :channels] @ model.smear.gate.weight.T)
    return torch.cat((x[:1], x[1:] + gate * x[:-1]))


def of_nanochat(model: nn.Module, tokens: Tensor) -> Tensor:
    """The logits of one sequence by nanochat/gpt.py, with short windows of 5 tokens."""
    width, layers = model.cfg.dim // model.cfg.attention.num_heads, len(model.blocks)
    angles = torch.arange(len(tokens))[:, None] * 100_000 ** (-torch.arange(0, width, 2) / width)

    def rotate(x):  # channel i with i + p/2
        b, a = x.chunk(2, dim=-1)  # swapped
        return torch.cat((a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin()), dim=-1)

    x = x_0 = smeared(model, norm(model.embed.tokens.weight[tokens]), 24)
    for i, block in enumerate(model.blocks):
        part = block.mixer.branch
        x = block["enter"].own * x + block["enter"].embedded * x_0
        y = norm(x)
        q, k, v = (heads(y @ linear.weight.T, width) for linear in (part.q, part.k, part.v))
        if i % 2 == (layers - 1) % 2:
            gate = 3 * torch.sigmoid(y[:, :12] @ part.value_embedding.gate.weight.T)
            v = v + gate.T[..., None] * heads(part.value_embedding.table.weight[tokens], width)
        q, k = 1.2 * norm(rotate(q)), 1.2 * norm(rotate(k))
        y = weigh(q, k, v, scale=16**-0.5, window=None if i % 4 == 3 or i == layers - 1 else 5)
        x = x + y.transpose(0, 1).flatten(1) @ part.out.weight.T
        x = x + relu2(block.mlp.branch, norm(x))
        if i == layers // 2:
            middle = x
    return 15 * torch.tanh(norm(x - model.backout.factor * middle) @ model.head.unembed.weight.T / 15)


def of_modded(model: nn.Module, tokens: Tensor) -> Tensor:
    """The logits of one sequence by what is kept of train_gpt.py, with heads of 16 and short windows of 5 tokens."""
    angles = torch.arange(len(tokens))[:, None] * 1024 ** (-32 / 31 * torch.arange(4) / 4)
    angles = angles.repeat_interleave(2, dim=1)  # of pairs of neighbours in the first half of a head

    def rotate(x):
        pairs = x[..., :8].unflatten(-1, (4, 2)).flip(-1)  # swapped
        flipped = torch.stack((pairs[..., 1], -pairs[..., 0]), dim=-1).flatten(-2)
        return torch.cat((pairs.flatten(-2) * angles.cos() + flipped * angles.sin(), x[..., 8:]), dim=-1)

    def attend(i, part, y):
        q, k, v = (heads(y @ linear.weight.T, 16) for linear in (part.q, part.k, part.v))
        if i in (3, 10):  # half of each key is that of the token before
            k = torch.cat((k[..., :8], torch.cat((k[:, :1, 8:], k[:, :-1, 8:]), dim=1)), dim=-1)
        if i in (1, 2, 8, 9, 10):
            gate = 2 * torch.sigmoid(y[:, :12] @ part.value_embedding.gate.weight.T)
            v = v + gate.T[..., None] * heads(part.value_embedding.table.weight[tokens], 16)
        z = weigh(rotate(norm(q)), rotate(norm(k)), v, scale=0.1, window=None if i in (3, 10) else 5)
        if i in (1, 3, 4, 7):
            share = (z * v).sum(-1, keepdim=True) / v.square().sum(-1, keepdim=True)
            z = z - part.exclusive.alpha.tanh()[:, None, None] * share * v
        if i in (3, 10):
            z = z * torch.sigmoid(y @ part.gate.gate.weight.T).T[..., None]
        return z.transpose(0, 1).flatten(1) @ part.out.weight.T

    table = model.blocks[0]["memory"].table.weight
    pairs = [len(table) - 1] + [(36313 * b ^ 27191 * a) % (len(table) - 1) for a, b in zip(
        tokens.tolist(), tokens.tolist()[1:], strict=False)]
    x = x_0 = smeared(model, norm(model.embed.tokens.weight[tokens]), 12)
    for i, block in enumerate(model.blocks):
        x = block["enter"].own * x + block["enter"].embedded * x_0
        if i != 6:
            x = x + block["memory"].factor * table[pairs]
            x = x + attend(i, block.mixer.branch, norm(x))
        x = x + relu2(block.mlp.branch, norm(x))
        if i == 7:
            middle = x
    logits = norm(x - model.backout.factor * middle) @ model.head.unembed.weight.T
    return 23 * torch.sigmoid(logits / 7.5) - 11.5


SIZES = {"vocab_size": 61, "max_seq_len": 32, "attention.num_heads": 3, "hidden_dim": 40}
MODELS = {
    "nanochat-2026": (of_nanochat, SIZES | {
        "num_layers": 8, "dim": 48, "attention.scale": 1.44 / 4, "kinds.short.attention.window": 5,
        "kinds.short-values.attention.window": 5}),
    "modded": (of_modded, SIZES | {"dim": 48, "attention.window": 5, "vocab_multiple_of": 1}),
}
each_model = pytest.mark.parametrize("name", MODELS)


@cache
def small(name: str) -> tuple[Model, Tensor, Tensor]:
    """A model with random weights, tokens and its logits by the formula."""
    formula, sizes = MODELS[name]
    model = randomise(Model(override(load_preset(name).model, sizes)), std=0.4)
    tokens = small_tokens(b=1, t=19, vocab_size=61)
    return model, tokens, formula(model, tokens[0])


@each_model
def test_a_speedrun_is_its_formulas(name):
    model, tokens, expected = small(name)
    found = model(tokens)[0]
    assert_close(found, expected, "parity")
    gradients = [torch.autograd.grad(y.square().mean(), list(model.parameters()), retain_graph=True)
                 for y in (found, expected)]
    assert_close(*gradients, "parity_grad")
    assert all(grad.any() for grad in gradients[0])


# not in a forward pass, or of its size
OF_SIZE = {"dim", "num_layers", "hidden_dim", "max_seq_len", "vocab_size", "vocab_multiple_of", "layers", "init",
           "out_init", "head_zero_init", "bigram.start", "attention.num_heads"}
BESIDE = {"smear": {"smear_dim": 12}, "backout": {"backout_depth": 0.5},  # which would be ignored without it
          "memory": {"bigram.factor": 5, "bigram.start": 0.1}}
FAR = {"norm_eps": 0.1}  # whose plain value is near


def mutations(cfg: ModelConfig) -> Iterator[dict[str, Any]]:
    """Each flag of the model that is not plain made plain, and each of a kind made that of the model."""
    for flag, value in flat(cfg).items():
        if flag.startswith("kinds."):
            yield {flag: get(cfg, flag.split(".", 2)[2])}
        elif flag not in OF_SIZE and value != PLAIN_MODEL.get(flag, value):
            yield {flag: FAR.get(flag, PLAIN_MODEL[flag])} | BESIDE.get(flag, {})


def with_weights(model: Model, cfg: ModelConfig) -> Model:
    """A random model with the weights of another one, where it has them; of larger ones the first rows."""
    other, own = randomise(Model(cfg), seed=1), dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        if name in own:
            part = own[name].detach()[tuple(map(slice, parameter.shape))]
            parameter.data[tuple(map(slice, part.shape))] = part
    return other


@each_model
def test_every_flag_of_a_speedrun_is_in_its_formula(name):
    model, tokens, expected = small(name)
    changes = list(mutations(model.cfg))
    assert len(changes) >= 20
    for change in changes:
        other = with_weights(model, override(model.cfg, change))
        assert not torch.allclose(other(tokens)[0], expected, atol=1e-3), change


def test_the_widest_wavelength_of_modded_is_1024():
    frequencies = InterleavedRoPE(128, load_preset("modded").model.rope).frequencies
    assert_close(frequencies, (1 / 1024) ** torch.linspace(0, 1, 32), "same")


@each_model
def test_the_middle_layer_is_that_of_the_repository(name):
    cfg = load_preset(name).model
    assert int(cfg.backout_depth * cfg.num_layers) == {"nanochat-2026": 24 // 2, "modded": 7}[name]
