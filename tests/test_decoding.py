"""A lean model computes what the model does, and what watches a model still sees its calls."""

import pytest
import torch
from helpers import assert_close, small_model, small_tokens

from config import SampleConfig
from generation.sampling import generate
from modules import decoding, linear
from tools import trace

ON_CPU = torch.backends.mkldnn.is_available()


def write(model):
    return generate(model, [[1, 5, 9], [1]], SampleConfig(max_new_tokens=4, temperature=0.0), eos_id=-1)


def test_a_lean_model_shares_its_tensors_and_leaves_the_model_as_it_was():
    model = small_model().eval()
    before, text = {type(part) for part in model.modules()}, repr(model)
    lean = model.lean()
    assert [p.data_ptr() for p in lean.parameters()] == [p.data_ptr() for p in model.parameters()]
    assert {type(part) for part in model.modules()} == before and repr(model) == text
    assert not {type(part) for part in lean.modules()} & before


def test_a_hook_on_a_part_sees_every_call_in_generation():
    model, calls = small_model(), []
    expected = write(model)
    model.blocks[1]["mlp"].branch.up.register_forward_hook(lambda *_: calls.append(1))
    assert write(model) == expected and len(calls) == 4


def test_a_hook_on_all_modules_sees_the_parts_in_generation():
    model, seen = small_model(), set()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda part, *_: seen.add(part))
    try:
        write(model)
    finally:
        handle.remove()
    assert model.blocks[0]["mixer"].branch.q in seen


def test_a_trace_sees_the_parts_in_generation():
    model = small_model()
    expected = write(model)
    with trace(model) as t:
        assert write(model) == expected
    assert {"blocks.0.mixer.branch", "head"} <= {call.path for call in t.walk()}


def test_a_forward_of_its_own_is_called():
    model, calls = small_model(), []
    part = model.blocks[0]["mlp"].branch
    own = part.forward
    part.forward = lambda *args: calls.append(1) or own(*args)
    write(model)
    assert len(calls) == 4


@pytest.mark.skipif(not ON_CPU, reason="torch without oneDNN")
@pytest.mark.parametrize("most_packed", [0, decoding.MOST_PACKED])
@pytest.mark.parametrize("bias", [False, True])
def test_products_of_another_library_equal_x_w_plus_b(most_packed, bias, monkeypatch):
    monkeypatch.setattr(linear, "SLOW_MKL", True)
    monkeypatch.setattr(decoding, "MOST_PACKED", most_packed)
    called = []
    own = decoding.packed
    monkeypatch.setattr(decoding, "packed", lambda part: called.append(1) or own(part))
    torch.manual_seed(0)
    part, x = torch.nn.Linear(160, 700, bias=bias), torch.randn(3, 4, 160)
    expected = x @ part.weight.T + (part.bias if bias else 0)
    lean = decoding.lean(part)
    with torch.no_grad():
        assert_close(lean(x), expected, "same")
        assert_close(lean(2 * x) - lean(x), x @ part.weight.T, "same")
        assert_close(lean(x[:1, :1]), expected[:1, :1], "same")
    assert len(called) == 3


@pytest.mark.parametrize("flags", [{}, {"attention.num_kv_heads": 2}, {"attention.window": 5}], ids=str)
def test_one_query_gives_what_attention_gives(flags):
    model, x = small_model(**flags).eval(), small_tokens()
    caches = [model.make_cache(13) for _ in range(2)]
    with torch.no_grad():
        for i, j in [(0, 9), (9, 10), (10, 11)]:
            plain, lean = (each(x[:, i:j], cache=cache) for each, cache in
                           zip((model, model.lean()), caches, strict=True))
            assert_close(lean, plain, "same")
