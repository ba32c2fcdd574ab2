"""Residual streams other than one sum: hyper-connections, with and without a constraint, and attention over depth."""

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens
from torch import nn
from torch.nn import functional as F

from config import override
from model import Model
from modules.residuals.attnres import DepthMixture
from modules.residuals.hyper import ManifoldHyperConnections, ManifoldWeights, TanhWeights, WeightedStreams
from modules.stream import Context, Stream

CONTEXT = Context(torch.arange(5))


def streams(n: int, d: int = 6) -> torch.Tensor:
    return torch.randn(2, 5, n, d, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradients(output: torch.Tensor, part: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(output.square().sum(), [*part.parameters(), x])


def plain_model(model: Model, tokens: torch.Tensor, read) -> torch.Tensor:
    """The logits of a model, whose branches, in order, are given to `read`, which returns what its final norm reads."""
    x, context = model.embed(tokens, torch.arange(tokens.shape[1])), Context(torch.arange(tokens.shape[1]))

    def run(wiring: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return wiring.call(wiring.branch, wiring.norm(x), None, context, None)[0]

    return model.head(model.norm(read(x, [block[name] for block in model.blocks for name in block.branches], run)))


def test_hyper_connections_are_their_formula():
    """Zhu et al. 2024, equations 10 to 13, a stream at a time."""
    weights = randomise(TanhWeights(6, num_streams=3, reads=4, norm=nn.LayerNorm(6)), std=0.5)
    x = streams(3)
    found = torch.cat([part.flatten(2) for part in weights(x)], dim=-1)
    normalised = weights.norm(x)
    own, written = weights.scale
    expected = []
    for m in range(3):
        follow = torch.tanh(normalised[:, :, m] @ weights.follow.weight.T)
        expected.append((own * follow[..., 0] + weights.fixed[m, 0], written * follow[..., 1] + weights.fixed[m, 1],
                         own * follow[..., 2:] + weights.fixed[m, 2:]))
    read, write = (torch.stack([parts[i] for parts in expected], dim=-1) for i in range(2))
    expected = torch.cat((read, write, *(parts[2] for parts in expected)), dim=-1)
    assert_close(found, expected, "same")
    for grad, wanted in zip(gradients(found, weights, x), gradients(expected, weights, x), strict=True):
        assert_close(grad, wanted, "same")


def test_a_branch_reads_writes_and_mixes_streams():
    model = small_model(residual="hyper", **{"hyper.num_streams": 3}, layers=("base", "none"))

    def read(x, branches, run):
        x = [x] * 3
        for wiring in branches:
            reading, writing, mixing = wiring.weights(torch.stack(x, dim=2))
            y = run(wiring, sum(reading[..., m, None] * x[m] for m in range(3)))
            x = [writing[..., n, None] * y + sum(mixing[..., m, n, None] * x[m] for m in range(3)) for n in range(3)]
        return sum(x)

    assert_close(model(small_tokens()), plain_model(model, small_tokens(), read), "same")


@pytest.mark.parametrize("word", ["hyper", "mhc"])
def test_streams_begin_as_pre_norm(word):
    """The norms take away that a mixture is larger than a stream."""
    torch.manual_seed(0)
    many = Model(small_config(residual=word, num_layers=3))
    plain = Model(override(many.cfg, {"residual": "pre"}))
    plain.load_state_dict(many.state_dict(), strict=False)
    assert plain.state_dict().keys() < many.state_dict().keys()
    difference = (many(small_tokens()) - plain(small_tokens())).abs().max()
    assert difference < (0.02 if word == "mhc" else 0.002)  # what follows the stream is small, and not zero


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")


def reference_config(**sizes):
    from transformers import DeepseekV4Config

    return DeepseekV4Config(hidden_size=6, hc_mult=3, hc_eps=1e-3, rms_norm_eps=1e-4, **sizes)


@pytest.mark.parametrize("steps", [1, 4])
def test_constrained_weights_are_those_of_deepseek_v4(transformers, steps):
    theirs = randomise(transformers.DeepseekV4HyperConnection(reference_config(hc_sinkhorn_iters=steps)), std=0.7)
    ours, x = ManifoldWeights(6, num_streams=3, sinkhorn_steps=steps, eps=1e-3, norm_eps=1e-4), streams(3)
    names = {"logits.scale": "scale", "logits.bias": "base", "logits.follow.weight": "fn"}
    ours.load_state_dict({name: theirs.state_dict()[other] for name, other in names.items()})
    read, write, mix = ours(x)
    wiring = ManifoldHyperConnections(nn.Identity(), nn.Identity, ours)
    y = wiring(Stream(x), CONTEXT).x
    post, comb, collapsed = theirs(x)
    expected = post.unsqueeze(-1) * collapsed.unsqueeze(-2) + comb.mT @ x
    assert_close(write, post, "parity")
    assert_close(mix, comb, "parity")
    assert_close(torch.einsum("btn,btnd->btd", read, x), collapsed, "parity")
    assert_close(y, expected, "parity")
    their_grads = dict(zip([name for name, _ in theirs.named_parameters()] + ["x"], gradients(expected, theirs, x),
                           strict=True))
    our_grads = zip([names[name] for name, _ in ours.named_parameters()] + ["x"], gradients(y, ours, x), strict=True)
    for name, grad in our_grads:
        assert_close(grad, their_grads[name], "parity_grad")


def test_streams_end_as_those_of_deepseek_v4(transformers):
    theirs = randomise(transformers.DeepseekV4HyperHead(reference_config()), std=0.7)
    ours, x = WeightedStreams(6, num_streams=3, eps=1e-3, norm_eps=1e-4), streams(3)
    names = {"logits.scale": "hc_scale", "logits.bias": "hc_base", "logits.follow.weight": "hc_fn"}
    ours.load_state_dict({name: theirs.state_dict()[other] for name, other in names.items()})
    assert_close(ours(Stream(x)), theirs(x), "parity")


def test_the_mixing_of_constrained_streams_loses_and_adds_nothing():
    weights, x = randomise(ManifoldWeights(6, num_streams=4, sinkhorn_steps=20, eps=1e-6, norm_eps=1e-6)), streams(4)
    mix = weights(x)[2]
    assert (mix > 0).all()
    for axis in (-1, -2):
        assert (mix.sum(axis) - 1).abs().max() < 1e-3
    gain = torch.eye(4).expand_as(mix)
    for _ in range(50):
        gain = gain @ mix
    assert torch.linalg.matrix_norm(gain, ord=2).max() < 1.05


def test_one_stream_that_is_read_and_written_whole_is_the_plain_residual():
    many = small_model(residual="mhc", **{"hyper.num_streams": 1, "hyper.eps": 0.0})
    with torch.no_grad():
        for name, parameter in many.named_parameters():
            if "logits.scale" in name:
                parameter.zero_()  # weights that do not depend on the stream
            if "logits.bias" in name:
                parameter.copy_(torch.tensor([99.0, 0.0, 0.0])[:len(parameter)])  # reads all, writes all
    plain = Model(small_config()).eval()
    plain.load_state_dict(many.state_dict(), strict=False)
    assert_close(many(small_tokens()), plain(small_tokens()), "same")


@pytest.mark.parametrize("block_len", [1, 2, 3, 99])
def test_attention_over_depth_is_its_formula(block_len):
    """Chen et al. 2026: values as they are, keys normalised; the embedding is a source of its own."""
    model = small_model(residual="attnres", num_layers=4, layers=("base", "none"), norm_eps=1e-5,
                        **{"attnres.block_len": block_len})

    def mixture(part: DepthMixture, sources: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(sources)
        keys = F.rms_norm(stacked, stacked.shape[-1:], part.scale, 1e-5)
        shares = torch.einsum("lbtd,d->lbt", keys, part.query).softmax(0)
        return torch.einsum("lbt,lbtd->btd", shares, stacked)

    def read(x, branches, run):
        sources, so_far = [x], None
        for number, wiring in enumerate(branches):
            seen = sources if so_far is None else [*sources, so_far]
            y = run(wiring, mixture(wiring.mixture, seen) if number else x)
            so_far = y if so_far is None else so_far + y
            if (number + 1) % block_len == 0:
                sources, so_far = [*sources, so_far], None
        return mixture(model.exit.mixture, sources if so_far is None else [*sources, so_far])

    assert_close(model(small_tokens()), plain_model(model, small_tokens(), read), "same")


def test_attention_over_depth_begins_with_the_mean_of_its_sources():
    mixture, sources = DepthMixture(6, eps=1e-6), list(streams(3).unbind(2))
    assert_close(mixture(*sources), torch.stack(sources).mean(0), "same")


@pytest.mark.parametrize("flags", [{"kinds.x.residual": "pre", "residual": "hyper"}, {"kinds.x.residual": "attnres"}])
def test_layers_share_their_streams(flags):
    with pytest.raises(ValueError, match="all layers read and write the same streams"):
        small_config(layers=("x", "base"), **flags)
