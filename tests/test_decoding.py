"""A lean model computes what the model does, and what watches a model still sees its calls."""

import pytest
import torch
from helpers import assert_close, small_model, small_tokens

from config import RopeConfig, SampleConfig
from generation.sampling import check_finite, generate, likeliest
from modules import decoding, lean_forms, linear
from modules.mlps.dense import GLU
from modules.norm import RMSNorm
from modules.rope import ROTARY
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


@pytest.mark.skipif(not ON_CPU, reason="torch without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("limits", "copied"), [
    ({"MOST_PACKED": 0}, set()), ({"MIN_MODEL": 0, "MIN_NUMBERS": 0}, {"packed"}), ({"MIN_MODEL": 0}, {"columns"}),
    ({"MIN_NUMBERS": 0}, {"columns"})], ids=str)
def test_a_product_of_one_row_reads_a_copy_from_the_second_on(limits, copied, bias, monkeypatch):
    monkeypatch.setattr(linear, "SLOW_MKL", True)
    for name, value in limits.items():
        monkeypatch.setattr(decoding, name, value)
    torch.manual_seed(0)
    part, x = torch.nn.Linear(160, 70, bias=bias), torch.randn(3, 1, 1, 160)
    lean, expected = decoding.lean(part), x @ part.weight.T + (part.bias if bias else 0)
    for i in range(3):
        with torch.no_grad():
            assert_close(lean(x[i]), expected[i], "same")
        assert {"packed", "columns"} & set(vars(lean)) == (copied if i else set())


@pytest.mark.parametrize("flags", [{}, {"attention.num_kv_heads": 2}, {"attention.window": 5}], ids=str)
def test_one_query_gives_what_attention_gives(flags):
    model, x = small_model(**flags).eval(), small_tokens()
    caches = [model.make_cache(13) for _ in range(2)]
    with torch.no_grad():
        for i, j in [(0, 9), (9, 10), (10, 11)]:
            plain, lean = (each(x[:, i:j], cache=cache) for each, cache in
                           zip((model, model.lean()), caches, strict=True))
            assert_close(lean, plain, "same")


def written_token_by_token(model, lean, tokens):
    """The logits of both, each token alone after a few others."""
    caches = [model.make_cache(tokens.shape[1]) for _ in range(2)]
    for part in tokens.split([4, *[1] * (tokens.shape[1] - 4)], dim=1):
        with torch.no_grad():
            yield [each(part, cache=cache) for each, cache in zip((model, lean), caches, strict=True)]


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("flags", [{}, {"norm_unit_offset": True}, {"norm_bias": True}, {"norm_affine": False}],
                         ids=str)
def test_a_lean_norm_equals_its_formula(norm, flags):
    part = small_model(norm=norm, **flags).norm
    x = torch.randn(2, 3, 24) * torch.tensor([[[1e-4], [1.0], [1e4]]])
    centred = x - x.mean(-1, keepdim=True) if norm == "layer" else x
    scale = 1.0 if part.scale is None else part.scale + float(flags.get("norm_unit_offset", False))
    expected = centred / (centred.square().mean(-1, keepdim=True) + part.eps).sqrt() * scale
    with torch.no_grad():
        assert_close(decoding.lean(part)(x), expected if part.bias is None else expected + part.bias, "same")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("layout", list(ROTARY))
def test_a_lean_rotation_equals_its_formula(layout, fraction, dtype):
    rope = RopeConfig(layout=layout, fraction=fraction, scaling="yarn", factor=4.0, original_len=64)
    part, lean_x = ROTARY[layout](16, rope), torch.randn(2, 3, 5, 16).to(dtype)
    positions, c = torch.arange(5) + torch.tensor([[0], [70]]), part.rotated // 2
    angles = (positions.float().unsqueeze(-1) * part.frequencies).unsqueeze(1)
    x = lean_x.to(torch.promote_types(dtype, torch.float32))
    first, second = ([slice(0, c), slice(c, 2 * c)] if layout == "half" else
                     [slice(0, 2 * c, 2), slice(1, 2 * c, 2)])
    expected, (a, b) = x.clone(), (x[..., first], x[..., second])
    expected[..., first] = (a * angles.cos() - b * angles.sin()) * rope.magnitude
    expected[..., second] = (b * angles.cos() + a * angles.sin()) * rope.magnitude
    lean = decoding.lean(part)
    found = lean(lean_x, lean.angles(positions))
    assert found.dtype == dtype
    assert_close(found, expected.to(dtype), "same")


ONE_TABLE, MIXED = {}, {"layers": ("near", "far"), "kinds": {"near": {}, "far": {"rope.theta": 1e6}}}


@pytest.mark.parametrize(("flags", "number"), [(ONE_TABLE, 1), (MIXED, 2)], ids=["one", "mixed"])
def test_a_table_of_angles_is_made_once_in_a_forward(flags, number, monkeypatch):
    made, own = [], decoding.TurnedHalves.table
    monkeypatch.setattr(decoding.TurnedHalves, "table", lambda *args: made.append(1) or own(*args))
    model = small_model(num_layers=4, position="rope", **flags)
    for i, (plain, lean) in enumerate(written_token_by_token(model, model.lean(), small_tokens()[:, :7])):
        assert len(made) == number * (i + 1)
        assert_close(lean, plain, "same")


def test_positions_that_were_changed_in_place_are_read_again():
    model, x, positions = small_model(position="rope"), small_tokens(), torch.arange(13)
    lean = model.lean()
    with torch.no_grad():
        for _ in range(2):
            assert_close(lean(x, positions=positions), model(x, positions=positions), "same")
            positions.mul_(3)


def test_frequencies_that_were_changed_by_hand_are_those_of_their_layer():
    model = small_model(position="rope")
    model.blocks[1]["mixer"].branch.rotary.frequencies.mul_(0.3)
    for plain, lean in written_token_by_token(model, model.lean(), small_tokens()):
        assert_close(lean, plain, "same")


JOINED = [
    {}, {"position": "learned"}, {"attention.num_kv_heads": 2, "attention.q_bias": True}, {"qk_norm": "head"},
    {"qk_norm": "full", "attention.qk_norm_after_rope": False}, {"attention.clip": 0.1}, {"mlp": "clamped_glu"},
    {"rope.fraction": 2 / 3}, {"attention.temperature_scale": 0.5}, {"attention.value_embedding": True}]


@pytest.mark.parametrize("most_packed", [0, decoding.MOST_PACKED], ids=["one by one", "joined"])
@pytest.mark.parametrize("flags", JOINED, ids=str)
def test_maps_of_one_input_are_one_product_in_a_small_model(flags, most_packed, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_PACKED", most_packed)
    model = small_model(**{"position": "rope", "mlp": "glu"} | flags)
    lean = model.lean()
    for plain, found in written_token_by_token(model, lean, small_tokens()):
        assert_close(found, plain, "same")
    for part in (lean.blocks[0]["mixer"].branch, lean.blocks[0]["mlp"].branch):
        assert (part.whole is not None) == bool(most_packed)


@pytest.mark.parametrize("name", ["k", "rotary", "q_norm", "clip", "attend"])
def test_a_hook_on_a_part_of_attention_sees_each_call(name):
    models, seen = [small_model(position="rope") for _ in range(2)], [[], []]
    for model, calls in zip(models, seen, strict=True):
        part = getattr(model.blocks[1]["mixer"].branch, name)
        part.register_forward_hook(lambda _, given, y, calls=calls: calls.append((given[0], y)))
    number = len(list(written_token_by_token(models[0], models[1].lean(), small_tokens())))
    assert len(seen[0]) >= number == 10
    for plain, lean in zip(*seen, strict=True):
        assert_close(lean, plain, "same")


@pytest.mark.parametrize("many", [0, lean_forms.MANY_KEYS])
@pytest.mark.parametrize("seen", [None, (3, 1, 1, 7), (1, 1, 1, 7), (1, 7)], ids=str)
def test_a_weighted_mean_is_that_of_a_softmax(seen, many, monkeypatch):
    monkeypatch.setattr(lean_forms, "MANY_KEYS", many)
    q, k, v = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    scores = 0.3 * torch.einsum("b g r p, b g s p -> b g r s", q, k)
    if seen is not None:
        seen = torch.rand(seen) < 0.6
        seen[..., 2] = True
        scores = scores.masked_fill(~seen, -torch.inf)
    expected = torch.einsum("b g r s, b g s p -> b g r p", scores.softmax(-1), v)
    found = lean_forms.weighted_mean(*(x.flatten(0, 1) for x in (q, k, v)), seen, 0.3)
    assert_close(found, expected.flatten(0, 1), "same")


def test_a_class_with_a_method_of_its_own_keeps_it():
    class Scaled(RMSNorm):
        def normalise(self, x, scale):
            return 2 * super().normalise(x, scale)

    class Swapped(GLU):
        def read(self, x, *groups):
            return super().read(x, *groups)[::-1]

    x = torch.randn(2, 1, 24)
    for part in (Scaled(24), Swapped(24, hidden_dim=16)):
        with torch.no_grad():
            assert_close(decoding.lean(part)(x), part(x), "same")


def test_an_object_with_a_method_of_its_own_keeps_it():
    model = small_model(position="rope")
    for block in model.blocks:
        rotary = block["mixer"].branch.rotary
        rotary.angles = lambda positions, own=rotary.angles: own(3 * positions)
        block["mlp"].norm.scale_in = lambda dtype: torch.full((24,), 0.5)
    for plain, lean in written_token_by_token(model, model.lean(), small_tokens()):
        assert_close(lean, plain, "same")


def test_the_likeliest_token_is_the_first_of_the_largest_logits():
    logits = torch.randn(5, 300)
    logits[2, 7], logits[2, 200] = 9.0, 9.0
    assert likeliest(logits) == logits.argmax(-1).tolist() and likeliest(logits)[2] == 7
    assert likeliest(logits[:, :10]) == logits[:, :10].argmax(-1).tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused_and_large_ones_are_not(value):
    logits = torch.full((2, 300), 3e38)
    assert check_finite(logits) is logits
    logits[1, 4] = value
    with pytest.raises(ValueError, match="not finite"):
        check_finite(logits)
    logits = torch.zeros(2, 300)
    logits[1, 4], logits[0, 2] = value, -value
    with pytest.raises(ValueError, match="not finite"):
        check_finite(logits)
