"""Parts of the published architectures against their formulas, and against functions of transformers."""

import math

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from config import RopeConfig, override
from model import Model
from modules.attend import SDPA, DifferentialAttention, EagerAttention, SinkAttention
from modules.masks import Documents, Mask
from modules.mixers.attention import OutputGate
from modules.mlps.dense import XIELU, ClampedGLU
from modules.norm import L2Norm, LayerNorm, Rescaled, RMSNorm
from modules.position import T5Bias
from modules.qk_norm import EachHeadNorm
from modules.rope import RoPE
from modules.shift import Smear, TokenShift
from modules.short_conv import ShortConv
from modules.stream import Context, Stream
from presets import load_preset, tiny

CAUSAL = Mask(causal=True, allowed=None)

# ---- rotary frequencies ----


@pytest.mark.parametrize(("scaling", "flags", "theirs"), [
    ("linear", {}, {}),
    ("llama3", {"original_len": 64, "low_freq_factor": 1.5, "high_freq_factor": 3.0},
     {"low_freq_factor": 1.5, "high_freq_factor": 3.0, "original_max_position_embeddings": 64}),
    ("yarn", {"original_len": 64, "beta_fast": 8.0, "beta_slow": 2.0},
     {"beta_fast": 8.0, "beta_slow": 2.0, "original_max_position_embeddings": 64}),
    ("yarn", {"original_len": 100, "truncate": False},
     {"truncate": False, "original_max_position_embeddings": 100}),
    ("yarn", {"original_len": 100, "attention_factor": 1.7},
     {"attention_factor": 1.7, "original_max_position_embeddings": 100}),
    ("yarn", {"original_len": 4_000_000, "theta": 20.0},
     {"rope_theta": 20.0, "original_max_position_embeddings": 4_000_000}),
], ids=str)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scaled_frequencies_are_those_of_transformers(scaling, flags, theirs, fraction):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": scaling, "factor": 6.0, "rope_theta": 1000.0, "partial_rotary_factor": fraction} | theirs
    config = transformers.LlamaConfig(hidden_size=192, num_attention_heads=4, head_dim=48, rope_parameters=parameters)
    frequencies, factor = ROPE_INIT_FUNCTIONS[scaling](config)
    rope = RoPE(48, RopeConfig(**{"scaling": scaling, "factor": 6.0, "theta": 1000.0, "fraction": fraction} | flags))
    assert_close(rope.frequencies, frequencies, "rounding")
    cos, sin = rope.angles(torch.tensor([0, 3]))
    assert_close(cos[0], torch.full_like(cos[0], factor), "rounding")
    assert_close(sin[1], (3 * frequencies).sin() * factor, "same")


@pytest.mark.parametrize("mixer", ["attention", "latent"])
def test_queries_grow_with_the_logarithm_of_their_position(mixer):
    flags = {"attention.temperature_scale": 0.5, "attention.temperature_len": 3, "attention.temperature_first": 1}
    tempered, plain = small_model(mixer=mixer, **flags).blocks[0].mixer, small_model(mixer=mixer).blocks[0].mixer
    plain.load_state_dict(tempered.state_dict())
    x, positions = torch.randn(2, 7, 24), torch.arange(7)
    found, expected = (mixer.branch.project(x, positions) for mixer in (tempered, plain))
    for i in range(7):
        factor = 1 + 0.5 * math.log(1 + (i + 1) // 3)
        for q, base in list(zip(found, expected, strict=True))[:1 if mixer == "attention" else 2]:
            assert_close(q[:, :, i], base[:, :, i] * factor, "same")
    assert_close(found[-2:], expected[-2:], "rounding")  # not what they meet


def test_ntk_slows_the_lowest_frequency_by_the_factor_and_leaves_the_highest():
    plain, scaled = RoPE(16, RopeConfig()), RoPE(16, RopeConfig(scaling="ntk", factor=8.0))
    assert scaled.frequencies[0] == plain.frequencies[0]
    assert_close(scaled.frequencies[-1], plain.frequencies[-1] / 8, "rounding")


@pytest.mark.parametrize("flags", [{"factor": 2.0}, {"scaling": "yarn"}, {"scaling": "linear", "factor": 0.5},
                                   {"scaling": "llama3", "factor": 2.0, "low_freq_factor": 4.0},
                                   {"scaling": "yarn", "factor": 2.0, "beta_slow": 40.0}], ids=str)
def test_scalings_that_do_not_scale_are_refused(flags):
    with pytest.raises(ValueError, match="factor|beta"):
        RopeConfig(**flags)


@pytest.mark.parametrize("flags", [
    {"rope.original_len": 100}, {"rope.scaling": "linear", "rope.factor": 2.0, "rope.beta_fast": 20.0},
    {"rope.scaling": "yarn", "rope.factor": 2.0, "rope.low_freq_factor": 2.0}, {"attention.qk_norm_bias": True},
    {"attention.qk_norm_after_rope": True}, {"alibi.scale": 2.0}, {"sinusoidal.theta": 9.0},
    {"qk_norm": "full", "attention.qk_norm_after_rope": True}, {"norm": "none", "inner_norm": True},
    {"depth_scaled_norms": True, "residual": "post"}, {"depth_scaled_norms": True, "num_layers": 1},
], ids=str)
def test_flags_of_parts_that_are_not_there_are_refused(flags):
    with pytest.raises(ValueError, match="would change nothing"):
        small_config(**flags)


# ---- norms and activations ----


def test_l2_gives_every_vector_the_length_one_before_its_scale():
    x, norm = torch.randn(2, 5, 8), L2Norm(8)
    assert_close(norm(x), x / x.norm(dim=-1, keepdim=True), "same")
    randomise(norm)
    assert_close(norm(x), x / x.norm(dim=-1, keepdim=True) * norm.scale, "same")


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
@pytest.mark.parametrize("offset", [False, True])
def test_each_head_has_a_scale_and_a_shift_of_its_own(kind, offset):
    x = torch.randn(2, 3, 5, 8)
    norm = EachHeadNorm(8, num_heads=3, make_norm=lambda dim: kind(dim, affine=False), affine=True, bias=True,
                        offset=offset)
    assert_close(norm(x), kind(8)(x), "same")  # at the start
    randomise(norm)
    for head in range(3):
        expected = kind(8)(x[:, head]) * (norm.scale[head] + offset) + norm.bias[head]
        assert_close(norm(x)[:, head], expected, "same")


def test_xielu_is_its_formula_and_that_of_transformers():
    x, act = torch.linspace(-3, 3, 101), XIELU()
    assert act(x[x > 0]).allclose(0.8 * x[x > 0] ** 2 + 0.5 * x[x > 0], atol=1e-6)
    randomise(act)
    alpha_p, alpha_n = F.softplus(act.alpha_p), 0.5 + F.softplus(act.alpha_n)
    expected = torch.where(x > 0, alpha_p * x**2, alpha_n * (x.exp() - 1 - x)) + 0.5 * x
    assert_close(act(x), expected, "same")
    theirs = pytest.importorskip("transformers.activations").XIELUActivation(dtype=torch.float32)
    theirs.load_state_dict(act.state_dict(), strict=False)
    assert_close(act(x), theirs(x), "same")


def test_a_clamped_glu_is_the_formula_of_gpt_oss():
    options = {"hidden_dim": 10, "bias": True}
    x = 3 * torch.randn(2, 5, 6)
    mlp = randomise(ClampedGLU(6, activation="quick_gelu", limit=1.5, offset=1.0, **options), std=1.0)
    gate, up = mlp.gate(x), mlp.up(x)
    assert (gate > 1.5).any() and (gate < -1.5).any() and (up > 1.5).any() and (up < -1.5).any()
    gate, up = gate.clamp(max=1.5), up.clamp(min=-1.5, max=1.5)
    expected = mlp.out((up + 1) * (gate * torch.sigmoid(gate * 1.702)))
    gradients = [torch.autograd.grad(y.square().mean(), list(mlp.parameters())) for y in (mlp(x), expected)]
    assert_close(mlp(x), expected, "same")
    assert_close(*gradients, "parity_grad")


def test_a_clamped_glu_is_an_expert_of_transformers():
    gpt_oss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    config = pytest.importorskip("transformers").GptOssConfig(hidden_size=6, intermediate_size=10, num_local_experts=1)
    experts, mlp = randomise(gpt_oss.GptOssExperts(config), std=2.0), ClampedGLU(
        6, hidden_dim=10, activation="quick_gelu", bias=True)
    for linear, weight, bias in ((mlp.gate, experts.gate_up_proj[0, :, ::2], experts.gate_up_proj_bias[0, ::2]),
                                 (mlp.up, experts.gate_up_proj[0, :, 1::2], experts.gate_up_proj_bias[0, 1::2]),
                                 (mlp.out, experts.down_proj[0], experts.down_proj_bias[0])):
        linear.weight.data, linear.bias.data = weight.T, bias
    x = 3 * torch.randn(7, 6)
    assert (mlp.gate(x) > 7).any() and (mlp.up(x) < -7).any()
    assert_close(mlp(x), experts(x, torch.zeros(7, 1, dtype=torch.int64), torch.ones(7, 1)), "parity")


# ---- attention ----


def heads(b: int = 2, h: int = 4, g: int = 2, t: int = 6, p: int = 8) -> tuple[torch.Tensor, ...]:
    return torch.randn(b, h, t, p), torch.randn(b, g, t, p), torch.randn(b, g, t, p)


def test_a_sink_takes_its_share_of_the_weights_and_gives_nothing():
    q, k, v = heads()
    attend = randomise(SinkAttention(4, scale=0.3))
    # the same as one more key before all others, whose score is the sink and whose value is zero
    scores = torch.einsum("bhtp,bhsp->bhts", q, k.repeat_interleave(2, 1)) * 0.3
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf).exp()
    weights = scores / (scores.sum(-1, keepdim=True) + attend.sinks.exp().view(-1, 1, 1))
    expected = weights @ v.repeat_interleave(2, 1)
    assert_close(attend(q, k, v, CAUSAL, None), expected, "same")
    nn.init.constant_(attend.sinks, -1e9)
    assert_close(attend(q, k, v, CAUSAL, None), EagerAttention(scale=0.3)(q, k, v, CAUSAL, None), "same")


@pytest.mark.parametrize("kind", ["head", "channel"])
def test_a_gate_multiplies_each_head_or_channel_by_a_sigmoid_of_the_input(kind):
    y, x = torch.randn(2, 5, 12), torch.randn(2, 5, 7)
    gate = randomise(OutputGate(7, num_heads=3, head_dim=4, kind=kind))
    factors = (x @ gate.gate.weight.T).sigmoid()
    expected = y * (factors.repeat_interleave(4, -1) if kind == "head" else factors)
    assert_close(gate(y, x), expected, "same")


def test_clipped_projections_never_pass_the_limit_and_are_those_of_a_model_that_clips():
    model = small_model(**{"attention.clip": 0.3})
    attention, x = model.blocks[0].mixer.branch, torch.randn(2, 5, 24)
    q, k, v = attention.project(x, torch.zeros(5, dtype=torch.int64))  # at position 0 nothing turns
    for found, linear in ((q, attention.q), (k, attention.k), (v, attention.v)):
        expected = linear(x).clamp(-0.3, 0.3).unflatten(-1, (-1, 6)).transpose(1, 2)
        assert_close(found, expected, "same")
        assert (linear(x).abs() > 0.3).any()


def test_norms_after_rope_act_on_what_is_turned():
    flags = {"qk_norm": "head", "attention.qk_norm_kind": "layer"}
    after, before = (small_model(**flags, **{"attention.qk_norm_after_rope": late}) for late in (True, False))
    attention, x, positions = after.blocks[0].mixer.branch, torch.randn(2, 5, 24), torch.arange(5) + 3
    q, _, _ = attention.project(x, positions)
    heads_ = attention.q(x).unflatten(-1, (-1, 6)).transpose(1, 2)
    assert_close(q, attention.q_post_norm(attention.rotary(heads_, attention.rotary.angles(positions))), "same")
    assert not torch.allclose(before.blocks[0].mixer.branch.project(x, positions)[0], q, atol=1e-3)


def test_differential_attention_is_its_formula():
    q, k, v = heads(g=4)
    attend = randomise(DifferentialAttention(EagerAttention(scale=0.3), head_dim=8, layer=3, eps=1e-6))
    start = 0.8 - 0.6 * math.exp(-0.9)
    share = ((attend.lambda_q1 @ attend.lambda_k1).exp() - (attend.lambda_q2 @ attend.lambda_k2).exp() + start)
    hidden = torch.ones(6, 6).triu(1).bool()
    weights = (torch.einsum("bhtp,bhsp->bhts", q, k) * 0.3).masked_fill(hidden, -math.inf).softmax(-1)
    for pair in (0, 1):  # heads 0 and 2, and 1 and 3
        both = (weights[:, pair] - share * weights[:, pair + 2]) @ torch.cat((v[:, pair], v[:, pair + 2]), dim=-1)
        expected = both / (both.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 - start)
        found = attend(q, k, v, CAUSAL, None)[:, 2 * pair : 2 * pair + 2]
        assert_close(torch.cat((found[:, 0], found[:, 1]), dim=-1), expected, "same")


# ---- what layers share ----


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (5, 40), (8, 7)])
def test_a_bias_by_distance_is_that_of_t5(num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = pytest.importorskip("transformers").T5Config(
        num_heads=3, is_decoder=True, relative_attention_num_buckets=num_buckets,
        relative_attention_max_distance=max_distance)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    bias = randomise(T5Bias(3, num_buckets=num_buckets, max_distance=max_distance))
    theirs.relative_attention_bias.weight.data.copy_(bias.table)
    distance = torch.arange(-3, 300)
    expected = theirs._relative_position_bucket(-distance, bidirectional=False, num_buckets=num_buckets,
                                                max_distance=max_distance)
    assert torch.equal(bias.buckets(distance), expected)
    found, expected = bias(torch.arange(2, 150), torch.arange(150)), theirs.compute_bias(148, 150, past_seen_tokens=2)
    assert torch.equal(found, expected[0])
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_close(bias.table.grad, theirs.relative_attention_bias.weight.grad, "parity_grad")


def test_layers_share_the_table_of_the_first_with_t5():
    shared = small_model(position="t5", layers=("none", "base"), num_layers=4)
    each = small_model(position="t5", layers=("none", "base"), num_layers=4, **{"t5.shared": False})
    assert [name for name, _ in shared.named_parameters() if "table" in name] == [
        "blocks.1.mixer.branch.distance_bias.table"]
    each.load_state_dict(shared.state_dict(), strict=False)
    each.blocks[3].mixer.branch.distance_bias.table = each.blocks[1].mixer.branch.distance_bias.table
    assert_close(shared(small_tokens()), each(small_tokens()), "same")


@pytest.mark.parametrize("kind", ["fixed", "learned"])
def test_values_are_mixed_with_those_of_the_first_layer(kind):
    model = small_model(num_layers=3, **{"attention.value_residual": kind})
    parts, context = [block.mixer.branch for block in model.blocks], Context(torch.arange(5))
    stream, first = Stream(torch.randn(2, 5, 24)), None
    for part in parts:
        x = torch.randn(2, 5, 24)
        q, k, v = part.project(x, context.positions)
        first = v if first is None else first
        own, one = (0.5, 0.5) if part is parts[0] else (part.mix.own, part.mix.first)
        assert kind == "learned" or own == one == 0.5
        y, stream = part(x, context, None, stream)
        assert_close(y, part.join(part.attend_to(q, k, own * v + one * first, context, None), x), "same")


def test_layers_that_share_keys_use_those_of_the_last_layer_with_the_same_window():
    kinds = {"local": {"attention.window": 3}, "local-2": {"attention.window": 3, "attention.share_kv": True},
             "global": {}, "global-2": {"attention.share_kv": True}}
    model = small_model(layers=("local", "global", "local-2", "global-2"), kinds=kinds, num_layers=8)
    parts, context = [block.mixer.branch for block in model.blocks], Context(torch.arange(5))
    stream, x = Stream(torch.randn(2, 5, 24)), torch.randn(8, 2, 5, 24)
    keys = [part.project(x[i], context.positions)[1:] for i, part in enumerate(parts) if part.k is not None]
    for i, part in enumerate(parts):
        y, stream = part(x[i], context, None, stream)
        k, v = keys[i // 4 * 2 + i % 2]  # layers 2 and 3 use those of 0 and 1, layers 6 and 7 those of 4 and 5
        linear = part.q(x[i]).unflatten(-1, (-1, 6)).transpose(1, 2)
        q = part.rotary(linear, part.rotary.angles(context.positions))
        assert_close(y, part.join(part.attend_to(q, k, v, context, None), x[i]), "same")
    shared = {name for name, _ in model.named_parameters() if name.startswith("blocks.2.mixer.branch")}
    assert shared == {"blocks.2.mixer.branch.q.weight", "blocks.2.mixer.branch.out.weight"}
    assert [caches["mixer"] is None for caches in model.make_cache(9).layers] == [False, False, True, True] * 2


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"attention.value_residual": "fixed", "num_layers": 1}, "would change nothing"),
    ({"attention.value_residual": "fixed", "layers": ("base", "few"), "kinds": {"few": {"attention.num_kv_heads": 2}}},
     "layer 1 takes the values of layer 0, which differs in attention.num_kv_heads"),
    ({"attention.share_kv": True, "num_layers": 1}, "would change nothing"),
    ({"layers": ("base", "x"), "kinds": {"x": {"attention.share_kv": True, "rope.theta": 9.0}}}, "differs in rope"),
    ({"layers": ("base", "x"), "kinds": {"x": {"attention.share_kv": True, "attention.k_bias": True}}},
     "differs in attention.k_bias"),
    ({"position": "t5", "layers": ("base", "x"), "kinds": {"x": {"attention.num_heads": 2}}},
     "t5.shared=True in layer 1 takes the bias of layer 0, which differs in attention.num_heads"),
    ({"position": "t5", "t5.max_distance": 16}, "max_distance=16"),
    ({"attention.differential": True, "attention.num_kv_heads": 1}, "attention.num_kv_heads=1 must be even"),
    ({"unit_weights": True, "out_init": "zero"}, "would divide by zero"),
    ({"residual": "ngpt", "out_init": "zero"}, "never learns"),
    ({"drop_branch": 1.0}, "drop_branch=1.0 leaves out every branch of the last layer"),
    ({"canon": ("mlp", "mlp")}, "canon=mlp mlp names a branch twice"),
    ({"canon": ("mixer",), "canon_len": 1}, "canon_len=1 has no earlier token"),
    ({"canon": ("mixer",), "mixer": "none"}, "canon=.* would change nothing"),
    ({"attention.exclusive": True, "attention.differential": True}, "a pair of heads has no value of its own"),
    ({"attention.differential": True, "attention.dropout": 0.1}, "leave one of them off"),
    ({"layers": ("base", "x"), "kinds": {"x": {"attention.share_kv": True, "attention.window": 3}}}, "change nothing"),
], ids=str)
def test_parts_that_do_not_fit_are_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**flags)


# ---- nGPT ----


def of_ngpt(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The logits by the formulas of arXiv:2410.01131, section 2: one sequence, one layer after the other."""
    def norm(x):
        return x / x.norm(dim=-1, keepdim=True)

    root, h = model.cfg.dim**0.5, model.embed.tokens.weight[tokens]  # a scale s is stored as s / sqrt(d)
    for block in model.blocks:
        attention, mlp = block.mixer.branch, block.mlp.branch
        angles = attention.rotary.angles(torch.arange(len(tokens)))
        q, k, v = (linear(h).unflatten(-1, (-1, 6)).transpose(0, 1)
                   for linear in (attention.q, attention.k, attention.v))
        s_qk = attention.q_post_norm.scale.vector * root
        q, k = (norm(attention.rotary(x, angles)) * s_qk for x in (q, k))
        hidden = torch.ones(len(tokens), len(tokens)).triu(1).bool()
        weights = (q @ k.mT * 6**0.5).masked_fill(hidden, -math.inf).softmax(-1)
        y = norm(attention.out((weights @ v).transpose(0, 1).flatten(1)))
        h = norm(h + (block.mixer.alpha.vector * root * 0.05).abs() * (y - h))
        u, gate = mlp.up(h) * mlp.up_scale.vector * root, mlp.gate(h) * mlp.gate_scale.vector * root * root
        y = norm(mlp.out(u * F.silu(gate)))
        h = norm(h + (block.mlp.alpha.vector * root * 0.05).abs() * (y - h))
    return model.head.unembed(h) * model.head.token_scale.vector * root


NGPT = {"residual": "ngpt", "mlp": "scaled_glu", "activation": "silu", "norm": "none", "final_norm": False,
        "qk_norm": "unit", "attention.qk_norm_after_rope": True, "attention.scale": 6**0.5, "token_scale": True,
        "unit_weights": True}


def test_ngpt_is_its_formulas():
    model, tokens = small_model(**NGPT), small_tokens(b=1)
    found, expected = model(tokens)[0], of_ngpt(model, tokens[0])
    assert_close(found, expected, "parity")
    gradients = [torch.autograd.grad(y.square().mean(), list(model.parameters())) for y in (found, expected)]
    assert_close(*gradients, "parity_grad")
    for changes in ({"ngpt.alpha": 0.1}, {"attention.scale": 1.0}, {"activation": "gelu"}, {"position": "none"}):
        other = Model(small_config(**NGPT | {"attention.qk_norm_after_rope": "position" not in changes} | changes))
        names = zip(other.state_dict(), model.state_dict().values(), strict=True)
        other.load_state_dict(dict(names))
        assert not torch.allclose(other(tokens)[0], expected, atol=1e-3)


def test_the_matrices_of_ngpt_have_vectors_of_length_one_at_the_start_and_after_each_step():
    model = Model(small_config(**NGPT))
    for _ in range(2):
        for name, matrix in ((name, p) for name, p in model.named_parameters() if p.dim() == 2):
            lengths = matrix.norm(dim=0 if name.endswith("out.weight") else 1)
            assert_close(lengths, torch.ones_like(lengths), "rounding")
        randomise(model)
        model.after_step()
    scales = [part.value() for part in Model(small_config(**NGPT)).modules() if isinstance(part, Rescaled)]
    assert {round(x.mean().item(), 4) for x in scales} == {0.05, 1.0, round(24**0.5, 4)}


# ---- exclusive attention ----


def test_exclusive_attention_takes_a_share_of_what_points_along_its_own_value():
    flags = {"attention.exclusive": True, "attention.num_kv_heads": 2, "attention.window": 5}
    model, plain, x = small_model(**flags), small_model(**flags | {"attention.exclusive": False}), torch.randn(2, 9, 24)
    layer, other = model.blocks[0].mixer.branch, plain.blocks[0].mixer.branch
    other.load_state_dict(layer.state_dict(), strict=False)
    layer.out = other.out = nn.Identity()
    context = model.read(small_tokens(t=9)).context
    y, v = other(x, context).unflatten(-1, (4, 6)), layer.v(x).unflatten(-1, (2, 6)).repeat_interleave(2, dim=2)
    own = v / v.norm(dim=-1, keepdim=True)
    expected = y - layer.exclusive.alpha.tanh()[:, None] * (y * own).sum(-1, keepdim=True) * own
    assert_close(layer(x, context), expected.flatten(2), "same")
    assert Model(small_config(**flags)).blocks[0].mixer.branch.exclusive.alpha.abs().max() == 0


# ---- how branches join ----


def test_a_layer_scale_is_a_factor_on_each_channel_of_what_a_branch_adds():
    model = small_model(layer_scale=0.1, residual_scale=0.5)
    block, x = model.blocks[0], torch.randn(2, 5, 24)
    context = model.read(small_tokens(t=5)).context
    x_1 = x + 0.5 * block.mixer.channels.factor * block.mixer.branch(block.mixer.norm(x), context)
    expected = x_1 + 0.5 * block.mlp.channels.factor * block.mlp.branch(block.mlp.norm(x_1))
    assert_close(block(Stream(x), context).x, expected, "same")
    assert_close(Model(small_config(layer_scale=0.1)).blocks[0].mlp.channels.factor, torch.full((24,), 0.1), "rounding")


def test_stochastic_depth_leaves_out_branches_of_rows_more_often_in_later_layers():
    model = small_model(drop_branch=0.6, num_layers=3)
    assert [block.mlp.drop_branch.probability for block in model.blocks] == pytest.approx([0.2, 0.4, 0.6])
    part, y = model.blocks[2].mlp.drop_branch, torch.ones(1000, 2, 3)
    assert_close(part(y), y, "rounding")
    dropped = part.train()(y)
    assert_close(dropped.unique(), torch.tensor([0.0, 2.5]), "rounding")
    assert (dropped == dropped[:, :1, :1]).all() and dropped.mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("residual", ["pre", "parallel", "sandwich"])
def test_a_layer_may_begin_with_a_share_of_the_embedding(residual):
    model = small_model(skip_to_embedding=True, residual=residual, num_layers=3)
    plain = small_model(residual=residual, num_layers=3)
    plain.load_state_dict(model.state_dict(), strict=False)
    tokens = small_tokens()
    embedded = x = model.embed(tokens, torch.arange(13))
    context = model.read(tokens).context
    for block, other in zip(model.blocks, plain.blocks, strict=True):
        x = other(Stream(block["enter"].own * x + block["enter"].embedded * embedded), context).x
    assert_close(model(tokens), model.head(model.norm(x)), "same")
    first = Model(small_config(skip_to_embedding=True)).blocks[1]["enter"]
    assert (first.own.item(), first.embedded.item()) == (1, 0)


# ---- Canon layers ----


def test_a_canon_layer_adds_earlier_tokens_by_weights_of_each_channel():
    conv, x = ShortConv(6, length=4), torch.randn(2, 7, 6)
    y = conv(x, Context(torch.arange(7)))
    for t in range(7):
        expected = x[:, t] + sum(conv.weight[i] * x[:, t - i] for i in range(4) if t >= i)
        assert_close(y[:, t], expected, "same")
    assert conv.weight.abs().max() <= 0.5


def test_canon_layers_stand_behind_the_norms_of_their_branches():
    model = small_model(canon=("mixer", "mlp"))
    block, x = model.blocks[0], torch.randn(2, 5, 24)
    context = model.read(small_tokens(t=5)).context
    mixer, mlp = block.mixer.branch, block.mlp.branch
    x_1 = x + mixer.part(mixer.conv(block.mixer.norm(x), context), context)
    assert_close(block(Stream(x), context).x, x_1 + mlp.part(mlp.conv(block.mlp.norm(x_1), context)), "same")


# ---- ModernBERT ----


def test_a_model_may_begin_without_a_norm_and_end_with_a_dense_layer():
    model, tokens = small_model(embed_norm=True, skip_first_norm=True, head_dense="gelu"), small_tokens()
    (first, second), context, head = model.blocks, model.read(tokens).context, model.head
    assert not list(first.mixer.norm.parameters()) and list(first.mlp.norm.parameters())
    x = model.embed(tokens, torch.arange(13))
    x = x + first.mixer.branch(x, context)
    x = x + first.mlp.branch(first.mlp.norm(x))
    x = model.norm(second(Stream(x), context).x)
    expected = head.unembed(head.transform.norm(F.gelu(head.transform.dense(x))))
    assert_close(model(tokens), expected, "same")
    with pytest.raises(ValueError, match="skip_first_norm=True would change nothing"):
        small_config(skip_first_norm=True, residual="branch_post")


# ---- Grok-1 ----


def of_grok(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The logits as xai-org/grok-1 computes them: one sequence."""
    def norm(x, scale):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale

    def rotate(x):  # (heads, t, p): channel i with channel i + p/2
        angles = torch.arange(len(tokens))[:, None] / 10_000 ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

    def mix(x, mlp):  # a softmax over all experts, of which the two best act; their shares do not sum to 1
        shares, chosen = (x @ mlp.router.logits.weight.T).softmax(-1).topk(2)
        gate, up, out = (getattr(mlp.experts, name).weight for name in ("gate", "up", "out"))
        return torch.stack([sum(share * (out[e] @ (F.gelu(gate[e] @ row, approximate="tanh") * (up[e] @ row)))
                                for share, e in zip(*pair, strict=True))
                            for row, *pair in zip(x, shares, chosen, strict=True)])

    h = model.embed.tokens.weight[tokens] * model.cfg.dim**0.5
    for block in model.blocks:
        mixer, mlp, width = block.mixer, block.mlp, model.cfg.attention.head_dim
        x = norm(h, mixer.norm.scale)
        q, k, v = (linear(x).unflatten(-1, (-1, width)).transpose(0, 1)
                   for linear in (mixer.branch.q, mixer.branch.k, mixer.branch.v))
        k, v = (x.repeat_interleave(len(q) // len(x), dim=0) for x in (k, v))
        scores = 30 * (rotate(q) @ rotate(k).mT * 0.08838834764831845 / 30).tanh()
        future = torch.ones(len(tokens), len(tokens)).triu(1).bool()
        y = (scores.masked_fill(future, -math.inf).softmax(-1) @ v).transpose(0, 1).flatten(1)
        h = h + norm(mixer.branch.out(y), mixer.post_norm.scale)
        h = h + norm(mix(norm(h, mlp.norm.scale), mlp.branch), mlp.post_norm.scale)
    return norm(h, model.norm.scale) @ model.embed.tokens.weight.T * 0.5773502691896257


def test_grok_is_its_formulas():
    cfg = tiny(load_preset("grok1"), vocab_size=61, max_seq_len=32).model
    model, tokens = randomise(Model(cfg)), small_tokens(b=1)
    for block in model.blocks:
        block.mixer.branch.q.weight.data *= 20  # scores that the cap bends
    found, expected = model(tokens)[0], of_grok(model, tokens[0])
    assert_close(found, expected, "parity")
    gradients = [torch.autograd.grad(y.square().mean(), list(model.parameters())) for y in (found, expected)]
    assert_close(*gradients, "parity_grad")
    for changes in ({"attention.softcap": 3.0}, {"attention.scale": 1.0}, {"logit_scale": 1.0}, {"embed_scale": 1.0},
                    {"residual": "branch_post"}, {"activation": "silu"}, {"rope.theta": 99.0}, {"norm_eps": 0.1},
                    {"moe.top_k": 3}, {"moe.renormalise": True}, {"moe.scores": "sigmoid"}):
        other = Model(override(cfg, changes))
        other.load_state_dict(model.state_dict(), strict=False)
        assert not torch.allclose(other(tokens)[0], expected, atol=1e-3), changes


# ---- wirings ----


def test_a_parallel_layer_can_have_a_norm_for_each_branch():
    model = small_model(residual="parallel_each")
    block, x = model.blocks[0], torch.randn(2, 5, 24)
    context = model.read(small_tokens(t=5)).context
    attended = block.mixer.branch(block.mixer.norm(x), context)
    expected = x + attended + block.mlp.branch(block.mlp.norm(x))
    assert_close(block(Stream(x), context).x, expected, "same")


@pytest.mark.parametrize("residual", ["pre", "parallel", "parallel_each"])
def test_norms_scaled_by_depth_are_divided_by_the_root_of_the_layer(residual):
    model, plain = small_model(depth_scaled_norms=True, residual=residual, num_layers=3), small_model(residual=residual,
                                                                                                    num_layers=3)
    for i, (block, other) in enumerate(zip(model.blocks, plain.blocks, strict=True), start=1):
        for scale in (part.scale for part in other.modules() if isinstance(part, RMSNorm)):
            scale.data /= math.sqrt(i)
        assert sum(isinstance(part, RMSNorm) for part in block.modules()) == (1 if residual == "parallel" else 2)
    assert_close(model(small_tokens()), plain(small_tokens()), "same")


def test_norms_within_branches_stand_before_the_output_projections():
    model = small_model(inner_norm=True, mlp="glu")
    mixer, mlp, x = model.blocks[0].mixer.branch, model.blocks[0].mlp.branch, torch.randn(2, 5, 24)
    assert_close(mlp(x), mlp.out(mlp.inner_norm(mlp.act(mlp.gate(x)) * mlp.up(x))), "same")
    y = torch.randn(2, 5, 24)
    assert_close(mixer.join(y, x), mixer.out(mixer.inner_norm(y)), "same")


@pytest.mark.parametrize(("device", "dtype", "masked", "fewer"), [
    ("cuda", torch.float32, False, False), ("cuda", torch.bfloat16, False, True), ("cuda", torch.bfloat16, True, False),
    ("cpu", torch.float32, True, True)])
def test_keys_are_repeated_where_no_fused_kernel_takes_fewer(device, dtype, masked, fewer, monkeypatch):
    """Else torch stores all scores; which kernel it chooses on CUDA can be seen with a GPU alone."""
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **_: calls.append(k.shape[1]) or q)
    with FakeTensorMode():
        q, k = (torch.empty(2, heads, 7, 8, device=device, dtype=dtype) for heads in (4, 2))
        mask = Mask(causal=not masked, allowed=torch.ones(7, 7, dtype=torch.bool, device=device) if masked else None)
        SDPA(scale=1.0)(q, k, k, mask, None)
    assert calls == [2 if fewer else 4]


# ---- the token before ----


@pytest.mark.parametrize("packed", [False, True])
def test_shifts_are_their_formulas(packed):
    torch.manual_seed(0)
    shift, smear, x = randomise(TokenShift(16, depth=0.5)), randomise(Smear(12)), torch.randn(2, 7, 16)
    ids = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [3] * 7])
    context = Context(torch.arange(7), Documents.of(ids, []) if packed else None)
    for row in range(2):
        for t in range(7):
            alone = t == 0 or packed and ids[row, t] != ids[row, t - 1]
            now, before = x[row, t], torch.zeros(16) if alone else x[row, t - 1]
            gate = torch.sigmoid(smear.gate.weight[0] @ now[:12])
            assert_close(shift(x, context)[row, t], (1 - shift.share) * now + shift.share * before, "same")
            assert_close(smear(x, context)[row, t], now + smear.scale * gate * before, "same")


def test_shares_of_the_token_before_fall_with_channel_and_layer():
    assert_close(TokenShift(4, depth=0.0).share, torch.tensor([1.0, 0.75, 0.5, 0.25]), "same")
    assert_close(TokenShift(4, depth=0.5).share, 1 - torch.tensor([0.0, 0.25, 0.5, 0.75]).sqrt(), "same")


@pytest.mark.parametrize("kind", ["mlp", "glu", "scaled_glu"])
def test_canon_within_branches_is_its_formula(kind):
    """B mixes queries, keys and values before they are split into heads, D what meets the nonlinearity."""
    flags = {"mlp": kind, "attention.num_kv_heads": 2, "qk_norm": "head", "num_layers": 1}
    convolved = small_model(canon=("qkv", "hidden"), **flags)
    attention, hidden = convolved.blocks[0].mixer.branch, convolved.blocks[0].mlp.branch
    x, context = torch.randn(2, 7, 24), Context(torch.arange(7))

    def conv(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x + sum(weight[i] * F.pad(x, (0, 0, i, 0))[:, :x.shape[1]] for i in range(4))

    projected = torch.cat((attention.q(x), attention.k(x), attention.v(x)), dim=-1)
    q, k, v = conv(attention.earlier.conv.weight, projected).split((24, 12, 12), dim=-1)
    plain = small_model(**flags).blocks[0].mixer.branch
    plain.load_state_dict(attention.state_dict(), strict=False)
    for name, y in (("q", q), ("k", k), ("v", v)):
        plain.register_module(name, Constant(y))
    assert_close(attention(x, context), plain(x, context), "same")
    mlp = hidden.mlp
    parts = conv(hidden.conv.weight, torch.cat([getattr(mlp, name)(x) for name in mlp.maps], -1)).chunk(
        len(mlp.maps), -1)
    act = {"mlp": lambda up: mlp.act(up), "glu": lambda gate, up: mlp.act(gate) * up,
           "scaled_glu": lambda gate, up: mlp.act(mlp.gate_scale(gate)) * mlp.up_scale(up)}[kind]
    assert_close(hidden(x, context), mlp.out(act(*parts)), "same")


class Constant(nn.Module):
    """Gives one tensor."""

    def __init__(self, y: torch.Tensor):
        super().__init__()
        self.y = y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.y


def test_half_of_each_key_comes_from_the_token_before():
    attention = small_model(**{"attention.key_offset": True, "attention.num_kv_heads": 2}).blocks[0].mixer.branch
    q, k, v = torch.randn(1, 5, 24), torch.randn(1, 5, 12), torch.randn(1, 5, 12)
    found = attention.earlier(q, k, v, Context(torch.arange(5)), None)
    expected = k.clone()
    for t in range(1, 5):
        for head in (slice(3, 6), slice(9, 12)):  # the second halves of two heads of 6
            expected[:, t, head] = k[:, t - 1, head]
    assert torch.equal(found[1], expected) and found[0] is q and found[2] is v
