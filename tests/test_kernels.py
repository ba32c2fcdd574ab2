"""Gradients that are written by hand: each function equals its plain form, in values and gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_tokens
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data import Batch
from model import Model
from modules import attend, causal, kernels, linear
from modules.masks import Mask
from objectives.base import FEWEST, fast_chunk
from objectives.multi_token import MultiToken
from objectives.next_token import NextToken


def with_gradients(call: Callable[..., Tensor | Sequence[Tensor]], *tensors: Tensor) -> list[Tensor]:
    """What `call` returns, and the gradient of a random mixture of it for each tensor."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]
    found = call(*leaves)
    found = [found] if isinstance(found, Tensor) else list(found)
    torch.manual_seed(1)
    mixed = sum((torch.randn(x.shape).to(x.dtype) * x).sum() for x in found)
    return [x.detach() for x in found] + list(torch.autograd.grad(mixed, [x for x in leaves if x.requires_grad]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nats_of_targets_are_those_of_a_log_softmax(dtype):
    logits, targets = torch.randn(3, 7, 11, dtype=dtype) * 5, torch.randint(11, (3, 7))
    logits[0, 0, 4], targets[0, 0] = -200, 4  # softmax is 0 there
    logits[1, :, 10] = -torch.inf  # never predicted
    targets[1] %= 10

    def plain(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        at_target = targets.unsqueeze(-1)
        return logits.gather(-1, at_target)[..., 0], -logits.log_softmax(-1).gather(-1, at_target)[..., 0]

    for ours, theirs in zip(with_gradients(kernels.of_targets, logits, targets), with_gradients(plain, logits, targets),
                            strict=True):
        assert_close(ours, theirs, "same")


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 8), (3, 4, 2, 6), (7,)])
def test_the_norm_is_that_of_torch(shape, scaled):
    x, scale = torch.randn(*shape) * 3, [torch.randn(shape[-1])] * scaled
    x = x.transpose(0, -2).contiguous().transpose(0, -2) if len(shape) > 1 else x  # as heads are
    ours = with_gradients(lambda x, scale=None: kernels.rms_norm(x, scale, 1e-3), x, *scale)
    theirs = with_gradients(lambda x, scale=None: nn.functional.rms_norm(x, shape[-1:], scale, 1e-3), x, *scale)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, "same")
    narrow = kernels.rms_norm(x.bfloat16().requires_grad_(), *scale or [None], 1e-3)
    assert narrow.dtype == torch.bfloat16 and torch.equal(narrow, nn.functional.rms_norm(
        x.bfloat16().float(), shape[-1:], *scale or [None], 1e-3).bfloat16())


ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def compiled(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(call, backend="aot_eager", fullgraph=True)


@ONEDNN
@pytest.mark.parametrize("way", [lambda call: call, compiled], ids=["eager", "compiled"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), [((2, 5, 8), 6), ((7, 8), 6), ((8,), 6), ((4, 10, 8), 60)])
def test_a_product_by_onednn_is_that_of_torch(monkeypatch, shape, outputs, bias, way):
    monkeypatch.setattr(linear, "by_onednn", lambda x, weight: True)
    x, weight = torch.randn(*shape), torch.randn(outputs, 8)
    x = x.transpose(0, -2).contiguous().transpose(0, -2) if len(shape) > 1 else x
    tensors = [x, weight, *[torch.randn(outputs)] * bias]
    ours = with_gradients(way(lambda x, weight, bias=None: linear.linear(x, weight, bias)), *tensors)
    for one, other in zip(ours, with_gradients(nn.functional.linear, *tensors), strict=True):
        assert_close(one, other, "same")
    with torch.no_grad():
        assert torch.equal(linear.linear(x, weight, None), linear.product(x, weight))
    frozen = linear.linear(x, weight.requires_grad_(), None)
    frozen.sum().backward()
    assert x.grad is None and weight.grad is not None


def test_onednn_takes_large_products_of_float32_alone(monkeypatch):
    monkeypatch.setattr(linear, "SLOW_MKL", True)
    x, weight = torch.randn(256, 64), torch.randn(64, 64)
    assert linear.by_onednn(x, weight) and not linear.by_onednn(x[:8], weight)
    assert linear.by_onednn(x, weight.T) and not linear.by_onednn(x, torch.randn(64, 70)[:, :64])  # which is slow
    assert not linear.by_onednn(x.double(), weight.double()) and not linear.by_onednn(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not linear.by_onednn(x, weight)
    monkeypatch.setattr(linear, "SLOW_MKL", False)
    assert not linear.by_onednn(x, weight)


def test_a_product_by_onednn_counts_as_many_operations():
    x, weight = torch.randn(2, 128, 64), torch.randn(96, 64)
    with FlopCounterMode(display=False) as counter:
        linear.linear(x, weight, None)
    assert counter.get_total_flops() == 2 * 256 * 64 * 96


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.chunk(2, dim=-1)


def neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 0::2], x[..., 1::2]


@pytest.mark.parametrize(("split", "join"), [
    (halves, lambda a, b: torch.cat((a, b), dim=-1)),
    (neighbours, lambda a, b: torch.stack((a, b), dim=-1).flatten(-2))])
def test_pairs_of_channels_are_rotated(split, join):
    x, angle = torch.randn(2, 3, 5, 8), torch.randn(5, 4)
    cos, sin = angle.cos(), angle.sin()

    def plain(x: Tensor) -> Tensor:
        a, b = split(x)
        return join(a * cos - b * sin, b * cos + a * sin)

    for ours, theirs in zip(with_gradients(lambda x: kernels.rotate(x, cos, sin, split), x), with_gradients(plain, x),
                            strict=True):
        assert_close(ours, theirs, "same")


@ONEDNN
@pytest.mark.parametrize("way", [lambda call: call, compiled], ids=["eager", "compiled"])
@pytest.mark.parametrize("t", [2, 9, 33])
@pytest.mark.parametrize("kept", [0, 33], ids=["again", "kept"])
def test_causal_attention_is_the_fused_one(monkeypatch, kept, t, way):
    monkeypatch.setattr(causal, "KEPT", kept)
    monkeypatch.setattr(causal, "QUERIES", 8)
    monkeypatch.setattr(causal, "SCORES", 300)  # of several heads, of one, of less than one
    q, k, v = (torch.randn(2, t, 3, width).transpose(1, 2) for width in (16, 16, 12))

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return way(causal.causal_attention)(q, k, v, 0.3)

    for one, other in zip(with_gradients(ours, q, k, v), with_gradients(fused, q, k, v), strict=True):
        assert_close(one, other, "same")
    exact = with_gradients(fused, q, k, v)
    errors = [[(one.float() - right).square().mean().sqrt() / right.square().mean().sqrt() for one, right in zip(
        with_gradients(call, q.bfloat16(), k.bfloat16(), v.bfloat16()), exact, strict=True)] for call in (ours, fused)]
    assert max(errors[0]) < 5 * max(errors[1]) < 0.05


@ONEDNN
def test_the_weights_of_short_texts_are_kept_for_a_gradient_and_change_nothing(monkeypatch):
    x, saved = torch.randn(2, 3, causal.KEPT + 1, 4, dtype=torch.bfloat16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: saved.append(kept.numel()), lambda _: None):
        for t in (causal.KEPT, causal.KEPT + 1):
            q = x[:, :, :t].clone().requires_grad_()
            causal.causal_attention(q, q, q, 1.0)
            causal.causal_attention(q.detach(), q.detach(), q.detach(), 1.0)
    assert [number for number in saved if number > x.numel()] == [6 * 128 * (128 + 256)]
    short = x[:, :, : causal.KEPT]
    found = [with_gradients(lambda *x: causal.causal_attention(*x, 1.0), short, short, short)]
    monkeypatch.setattr(causal, "KEPT", 0)
    found.append(with_gradients(lambda *x: causal.causal_attention(*x, 1.0), short, short, short))
    assert all(map(torch.equal, *found))


@ONEDNN
def test_attention_has_a_kernel_of_its_own_where_that_is_faster(monkeypatch):
    calls = []
    monkeypatch.setattr(attend, "causal_attention", lambda q, *_: calls.append(q.dtype) or q)
    attention = attend.SDPA(scale=0.3, dropout=0.1)
    q, short = torch.randn(1, 2, 512, 4), torch.randn(1, 2, 511, 4)
    for slow in (False, True):
        monkeypatch.setattr(linear, "SLOW_MKL", slow)
        for training in (False, True):  # with dropout, which it has not
            attention.train(training)
            for x in (q, short, short.bfloat16(), short.bfloat16()[:, :, -1:]):
                attention(x, x, x, Mask(causal=True, allowed=None), None)
                attention(x, x, x, Mask(causal=False, allowed=None), None)
    assert calls == [torch.bfloat16, torch.float32, torch.bfloat16]


@ONEDNN
def test_operators_of_compiled_models_tell_the_compiler_what_they_give():
    x, weight, bias = torch.randn(2, 9, 8), torch.randn(6, 8), torch.randn(6)
    for call, inputs in [
        (linear._whole_product, (x, weight, bias)), (linear._whole_product, (x, torch.randn(8, 6).T, None)),
        *((causal._attention, [*torch.randn(3, 2, 3, 9, 4, dtype=dtype).requires_grad_(), 1.0, True])
          for dtype in (torch.float32, torch.bfloat16)),
    ]:
        torch.library.opcheck(call, inputs)


HEADS = [
    {}, {"pointer": True}, {"pointer": True, "z_loss": 0.3}, {"tie_embeddings": True, "logit_softcap": 2.0},
    {"head_bias": True, "token_scale": True, "logit_scale": 0.5}, {"head_dense": "gelu", "ahead": "modules"}]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("flags", HEADS, ids=lambda flags: " ".join(flags) or "plain")
def test_a_loss_in_chunks_is_that_of_all_positions(flags, precision):
    model = randomise(Model(small_config(**flags)))
    tokens, targets = small_tokens(), small_tokens(seed=1)
    targets[0, 3:5] = -100
    batch, kind = Batch(tokens, targets, None, 24), MultiToken if model.ahead else NextToken
    found = []
    for chunk in (None, 5):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses = kind(model, loss_chunk=chunk, log_accuracy=True)(batch)
            (losses.total / 3).backward()
        found.append((losses.total.detach(), losses.parts, {name: p.grad for name, p in model.named_parameters()}))
    assert_close(*found, "same" if precision == "float32" else "rounded weights")


def test_a_frozen_head_and_a_frozen_body_are_left_alone():
    for frozen in ("head", "blocks"):
        model, grads = randomise(Model(small_config())), []
        getattr(model, frozen).requires_grad_(False)
        for chunk in (None, 4):
            model.zero_grad()
            NextToken(model, loss_chunk=chunk)(Batch(small_tokens(), small_tokens(), None, 26)).total.backward()
            grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert_close(*grads, "same")
        assert not any(name.startswith(frozen) for name in grads[0])


def test_logits_of_a_chunk_fit_into_a_cache_unless_there_would_be_too_few():
    assert fast_chunk(8, 4096, "cpu") == 64 and 4 * 64 * 8 * 4096 <= 8 * 2**20
    assert fast_chunk(8, 256, "cpu") == 1024
    assert fast_chunk(3, 150_000, "cpu") == -(-FEWEST // 3)
    assert fast_chunk(8, 4096, "cuda") > fast_chunk(8, 4096, "cpu")
