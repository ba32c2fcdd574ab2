"""The model and its parts against published counts, formulas and properties."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from helpers import LiveBytes, assert_close, flops_of, loss_of, randomise, small_config, small_model, small_tokens
from thorough import some
from torch import nn
from torch.nn import functional as F

from config import AttentionConfig, ModelConfig, RopeConfig, override
from data import Batch
from model import Model
from modules.attend import EagerAttention
from modules.head import Head
from modules.masks import ALL, Documents, Pattern, make_mask
from modules.mlps import MLPS
from modules.mlps.dense import ACTIVATIONS, GLU, MLP
from modules.norm import NORMS, CosineNorm, DyT, LayerNorm, RMSNorm, norm_maker
from modules.pointer import first_places
from modules.position import ALiBi, LearnedPosition, SinusoidalPosition, alibi_slopes
from modules.rope import ROTARY, InterleavedRoPE, RoPE
from modules.stream import Context, Stream
from objective import NextToken
from objectives.base import CrossEntropy
from presets import load_preset
from tools import shapes, trace
from tracing.module_tables import parameter_table

# ---- the whole ----


@pytest.mark.parametrize(("preset", "count"), [
    ("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200),
    ("llama3", 8_030_261_248), ("gemma2", 2_614_341_888),
])
def test_a_preset_has_the_published_number_of_parameters(preset, count):
    with torch.device("meta"):
        assert Model(load_preset(preset).model).num_parameters() == count


@pytest.mark.parametrize(("flags", "sizes"), [
    ({"attention.num_kv_heads": 2}, {"d": 24, "v": 37, "f": 96, "h": 4, "g": 2, "p": 6}),
    ({"mlp": "none", "mixer": "none", "vocab_multiple_of": 8}, {"d": 24, "v": 40}),
    ({"mlp": "none", "mixer": "none", "pointer": True, "pointer_dim": 5}, {"d": 24, "v": 37, "c": 5}),
    ({"mlp": "none", "mixer": "none", "noised": True, "noised_dim": 6, "tie_embeddings": True},
     {"d": 24, "v": 37, "u": 6}),
    ({"layers": ("x", "base"), "kinds": {"x": {"attention.num_heads": 2, "mlp": "none"}}},
     {"d": 24, "v": 37, "f": 96, "h": (2, 4), "g": (2, 4), "p": (6, 12)}),
])
def test_dims_are_the_axes_that_the_flags_fix(flags, sizes):
    assert small_model(**flags).dims() == sizes


@pytest.mark.parametrize(("flags", "width"), [
    ({}, 192), ({"mlp": "glu"}, 128), ({"dim": 50, "attention.num_heads": 5}, 224), ({"hidden_mult": 3.0}, 160),
    ({"mlp": "glu", "dim": 4096, "attention.num_heads": 32, "hidden_multiple_of": 256}, 11008),  # Llama 7B
    ({"hidden_multiple_of": 1, "mlp": "glu", "hidden_mult": 1.0}, 32), ({"hidden_dim": 7}, 7),
])
def test_hidden_width(flags, width):
    assert override(ModelConfig(), {"dim": 48, "attention.num_heads": 4} | flags).hidden_width == width


def test_a_vocabulary_is_rounded_up():
    assert small_model(vocab_multiple_of=16)(small_tokens()).shape == (2, 13, 48)
    with pytest.raises(ValueError, match="vocab_size=None"):
        Model(small_config(vocab_size=None))


@pytest.mark.parametrize("flags", [{}, {"position": "alibi"}, {"attention.window": 4}], ids=str)
def test_only_distances_matter_to_relative_positions(flags):
    model, tokens = small_model(**flags), small_tokens()
    assert_close(model(tokens, positions=torch.arange(13) + 70), model(tokens), "same")


def test_absolute_positions_matter_where_they_are_absolute():
    for kind in ("learned", "sinusoidal"):
        model, tokens = small_model(position=kind), small_tokens(t=9)
        assert not torch.allclose(model(tokens, positions=torch.arange(9) + 3), model(tokens), atol=1e-3)


SSF = {"layers": ("local", "local", "global"), "kinds": {"local": {"attention.window": 3}, "global": {}}}


def test_a_pattern_gives_each_layer_its_window():
    model = small_model(num_layers=5, **SSF)
    assert [block.mixer.branch.pattern.window for block in model.blocks] == [3, 3, None, 3, 3]


@pytest.mark.parametrize("flags", [{}, {"norm": "layer", "position": "alibi"}, {"attention.softcap": 5.0,
                                                                                "z_loss": 0.1}],
                         ids=str)
def test_bfloat16_trains(flags):
    model, tokens, targets = small_model(**flags), small_tokens(), small_tokens(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, tokens, targets)
        assert model(tokens).dtype == torch.float32
    loss.backward()
    assert_close(loss, loss_of(model, tokens, targets), "bfloat16")
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_dropout_acts_in_training_only():
    flags = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout"), 0.5)
    model, tokens = small_model(**flags), small_tokens()
    assert torch.equal(model(tokens), model(tokens))
    assert torch.equal(model(tokens), small_model()(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


# ---- documents and memory ----


def test_a_mask_is_made_once_for_all_layers_of_a_window(monkeypatch):
    made = []
    sees = Pattern.sees
    monkeypatch.setattr(Pattern, "sees", lambda self, *args, **causal: made.append(self.window) or sees(
        self, *args, **causal))
    model = small_model(num_layers=5, pointer=True, **SSF)
    model(small_tokens(), documents=torch.zeros(2, 13, dtype=torch.int64))
    assert sorted(made, key=str) == [3, None]


def test_one_document_a_row_is_a_row_without_documents():
    model, tokens = small_model(position="learned", pointer=True), small_tokens()
    assert_close(model(tokens, documents=torch.full((2, 13), 7)), model(tokens), "same")


def test_positions_begin_anew_with_each_document():
    ids = torch.tensor([[0, 0, 0, 1, 2, 2, -1], [5, 5, 4, 4, 5, 5, 5]])
    assert Documents.of(ids, []).positions().tolist() == [[0, 1, 2, 0, 0, 1, 0], [0, 1, 0, 1, 0, 1, 2]]


def test_documents_and_a_cache_are_refused_together():
    model = small_model()
    with pytest.raises(ValueError, match="documents and a cache do not go together"):
        model(small_tokens(), documents=torch.zeros(2, 13, dtype=torch.int64), cache=model.make_cache(13))


def peak_bytes(model: Model, *, t: int, loss_chunk: int | None = None) -> int:
    """The most that a training pass on (2, t) tokens keeps at a time."""
    tokens = small_tokens(2, t)
    with LiveBytes() as memory:
        loss_of(model, tokens, tokens, loss_chunk=loss_chunk).backward()
    return memory.peak


@pytest.mark.parametrize("pointer", [False, True])
def test_a_chunked_loss_never_holds_all_logits(pointer):
    cfg = small_config(vocab_size=6000, max_seq_len=256, pointer=pointer)
    whole, unasked, chunked = (peak_bytes(Model(cfg), t=256, loss_chunk=chunk) for chunk in (256, None, 8))
    logits = 2 * 256 * 6000 * 4
    assert chunked < 0.8 * logits < unasked < 2 * logits < whole


def test_checkpointed_activations_are_not_kept():
    cfg = small_config(num_layers=12, max_seq_len=64)
    whole, checkpointed = (peak_bytes(Model(cfg, checkpoint_activations=on), t=64) for on in (False, True))
    assert checkpointed < 0.4 * whole


@pytest.mark.parametrize(("checkpointed", "chunk", "packed"), some([
    (True, None, True), (False, None, False), (True, 5, False), (False, 5, True)], 4))  # every two of them
@pytest.mark.slow
def test_a_model_compiles_in_one_piece(checkpointed, chunk, packed):
    torch._dynamo.reset()
    cfg = small_config(pointer=True, **SSF | {"layers": ("local", "global")})
    objective = NextToken(randomise(Model(cfg, checkpoint_activations=checkpointed)), loss_chunk=chunk)
    documents = torch.tensor([[0] * 5 + [1] * 8] * 2) if packed else None
    batch = Batch(small_tokens(), small_tokens(seed=1), documents, 26)
    loss = torch.compile(objective, backend="eager", fullgraph=True)(batch).total
    assert_close(loss, objective(batch).total, "rounding")


# ---- weights ----


def stds(model: Model) -> dict[str, float]:
    """The standard deviation of each matrix, about 0, by name."""
    return {name: p.square().mean().sqrt().item() for name, p in model.named_parameters() if p.dim() == 2}


@pytest.mark.parametrize(("flags", "expected"), [
    ({"init": "normal", "init_std": 0.05}, {"q": 0.05, "k": 0.05, "up": 0.05, "gate": 0.05, "unembed": 0.05}),
    ({"init": "fan_in"}, {"q": 64**-0.5, "k": 64**-0.5, "up": 64**-0.5, "unembed": 64**-0.5, "tokens": 0.02}),
    ({"init": "xavier"}, {"q": (2 / 128) ** 0.5, "k": (2 / 80) ** 0.5, "up": (2 / 264) ** 0.5}),
    ({"out_init": "zero"}, {"out": 0.0, "q": 0.02}),
    ({"out_init": "same"}, {"out": 0.02}),
    ({"out_init": "depth"}, {"out": 0.02 / math.sqrt(6)}),
    ({"out_init": "depth", "init": "fan_in"}, {"mixer.branch.out": (1 / 6 / 64) ** 0.5,
                                               "mlp.branch.out": (1 / 6 / 200) ** 0.5}),
    ({"head_zero_init": True}, {"unembed": 0.0, "tokens": 0.02}),
    ({"position": "learned", "init_std": 0.1}, {"table": 0.1, "tokens": 0.1}),
], ids=str)
def test_matrices_are_drawn_by_rule(flags, expected):
    torch.manual_seed(0)
    model = Model(ModelConfig(dim=64, num_layers=3, attention=AttentionConfig(num_kv_heads=1), hidden_dim=200,
                              mlp="glu", vocab_size=300, max_seq_len=64, **flags))
    for end, std in expected.items():
        found = {name: value for name, value in stds(model).items() if name.endswith(f"{end}.weight")}
        assert found and found == pytest.approx(dict.fromkeys(found, std), rel=0.05)


def test_biases_start_at_zero_and_norms_as_the_identity():
    biases = dict.fromkeys(("attention.q_bias", "attention.k_bias", "attention.v_bias", "attention.out_bias",
                            "mlp_bias", "head_bias", "norm_bias"), True)
    parameters = dict(Model(small_config(**biases)).named_parameters())
    values = {end: {v for name, p in parameters.items() if name.endswith(end) for v in p.flatten().tolist()}
              for end in ("bias", "scale")}
    assert values == {"bias": {0.0}, "scale": {1.0}}


def test_a_tied_head_is_the_embedding():
    model = Model(small_config(tie_embeddings=True, init_std=0.3))
    assert model.head.unembed.weight is model.embed.tokens.weight
    assert model.num_parameters() == Model(small_config()).num_parameters() - 37 * 24
    assert stds(model)["embed.tokens.weight"] == pytest.approx(0.3, rel=0.1)


def test_a_model_that_starts_at_zero_predicts_uniformly():
    model = Model(small_config(head_zero_init=True))
    assert loss_of(model, small_tokens(), small_tokens(seed=1)).item() == pytest.approx(math.log(37))


# ---- loss and head ----


def test_targets_of_minus_100_never_count():
    model, tokens, targets = small_model(z_loss=0.3), small_tokens(), small_tokens(seed=1)
    targets[:, 5:] = -100
    assert_close(loss_of(model, tokens, targets), loss_of(model, tokens[:, :5], targets[:, :5]), "same")
    assert loss_of(model, tokens, torch.full_like(tokens, -100)).item() == 0.0


def test_the_loss_is_the_mean_cross_entropy_and_z_loss_its_formula():
    logits, targets = torch.randn(2, 5, 37), torch.randint(37, (2, 5))
    log_z = logits.exp().sum(-1).log()
    nats = (log_z - logits.gather(-1, targets[..., None])[..., 0]).mean()
    each, logsumexp = CrossEntropy()(logits, targets)
    assert_close(each.mean(), nats, "same")
    assert_close(logsumexp, log_z, "same")
    model, tokens = small_model(z_loss=0.3), small_tokens()
    log_z = model(tokens).exp().sum(-1).log()
    nats = (log_z - model(tokens).gather(-1, tokens[..., None])[..., 0]).mean()
    losses = NextToken(model)(Batch(tokens, tokens, None, tokens.numel()))
    assert_close(losses.total, nats + 0.3 * (log_z**2).mean(), "same")
    assert_close(losses.parts, {"next_token": nats, "z": (log_z**2).mean()}, "same")


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_accuracy_is_the_share_of_targets_that_are_likeliest_and_is_not_learned_from(chunk):
    model, tokens = small_model(z_loss=0.3), small_tokens()
    targets = model(tokens).argmax(-1)
    targets[0] = (targets[0] + 1) % 37
    targets[1, 1:] = -100
    batch = Batch(tokens, targets, None, tokens.shape[1] + 1)
    losses = NextToken(model, loss_chunk=chunk, log_accuracy=True)(batch)
    right, asked = (targets[1:] >= 0).sum(), (targets >= 0).sum()
    assert_close(losses.parts["train_accuracy"], right / asked, "same")
    assert_close(losses.total, NextToken(model, loss_chunk=chunk)(batch).total, "same")


def test_logits_are_scaled_then_capped():
    x = torch.randn(2, 5, 24) * 9
    head = Head(24, vocab_size=37, bias=True, scale=0.5, softcap=2.0)
    assert_close(head(x), 2 * torch.tanh(head.unembed(x) * 0.5 / 2), "same")
    assert head(x.double().float()).abs().max() <= 2


def test_scores_are_scaled_then_capped_then_masked():
    q, k, v = (torch.randn(2, 3, 5, 8) * 4 for _ in range(3))
    attend = EagerAttention(scale=0.7, softcap=1.5)
    positions = torch.arange(5)
    scores = 1.5 * torch.tanh(q @ k.mT * 0.7 / 1.5)
    future = torch.ones(5, 5).triu(1).bool()
    expected = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    assert_close(attend(q, k, v, make_mask(positions, positions, pattern=ALL, fresh=True), None), expected, "same")


def test_branches_are_scaled_as_they_join():
    model, tokens = small_model(num_layers=1, mlp="none", residual_scale=0.25), small_tokens()
    wiring = model.blocks[0].mixer
    x = torch.randn(2, 13, 24)
    context = Context(torch.arange(13))
    branch = wiring.branch(wiring.norm(x), context)
    assert_close(wiring(Stream(x), context).x, x + 0.25 * branch, "same")
    assert_close(model.embed(tokens, torch.arange(13)), model.embed.tokens(tokens), "same")


@pytest.mark.parametrize(("residual", "formula"), [
    ("pre", lambda x, f, norm, other: x + f(norm(x))),
    ("post", lambda x, f, norm, other: norm(x + f(x))),
    ("branch_post", lambda x, f, norm, other: x + norm(f(x))),
    ("sandwich", lambda x, f, norm, other: x + other(f(norm(x)))),
    ("none", lambda x, f, norm, other: f(norm(x))),
])
def test_a_wiring_is_its_formula(residual, formula):
    wiring = small_model(residual=residual).blocks[0].mlp
    x = torch.randn(2, 13, 24)
    expected = formula(x, wiring.branch, wiring.norm, getattr(wiring, "post_norm", None))
    assert_close(wiring(Stream(x), Context(torch.arange(13))).x, expected, "same")


def test_parallel_branches_share_a_norm():
    block, context = small_model(residual="parallel").blocks[0], Context(torch.arange(13))
    x = torch.randn(2, 13, 24)
    y = block.norm(x)
    expected = x + block.mixer.branch(y, context) + block.mlp.branch(y)
    assert_close(block(Stream(x), context).x, expected, "same")


def test_an_mlp_is_its_formula():
    x = torch.randn(2, 5, 24)
    mlp = MLP(24, hidden_dim=40, activation="relu2")
    assert_close(mlp(x), F.linear(F.relu(F.linear(x, mlp.up.weight)) ** 2, mlp.out.weight), "same")
    glu = GLU(24, hidden_dim=40, activation="silu", bias=True)
    assert_close(glu(x), glu.out(F.silu(glu.gate(x)) * glu.up(x)), "same")


def test_activations_are_what_their_names_say():
    x = torch.linspace(-3, 3, 50)
    formulas = {
        "relu": x.clamp(min=0), "relu2": x.clamp(min=0) ** 2, "gelu": x * (1 + torch.erf(x / 2**0.5)) / 2,
        "gelu_tanh": x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "silu": x * torch.sigmoid(x), "mish": x * torch.tanh(torch.log1p(x.exp())),
    }
    for name, expected in formulas.items():
        assert_close(ACTIVATIONS[name]()(x), expected, "same")


# ---- norms ----

X = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_layer_norm_equals_torch():
    ours, theirs = randomise(LayerNorm(24, eps=1e-3, bias=True)), nn.LayerNorm(24, eps=1e-3)
    theirs.load_state_dict({"weight": ours.scale, "bias": ours.bias})
    assert_close(ours(X), theirs(X), "same")


def test_a_norm_of_ones_own_is_given_what_it_takes_and_refuses_the_rest(monkeypatch):
    class MeanNorm(nn.Module):
        def __init__(self, dim, eps):
            super().__init__()
            self.eps = eps

    monkeypatch.setitem(NORMS, "mean", MeanNorm)
    flags = {"norm": "mean", "norm_eps": 1e-3, "norm_affine": True, "norm_bias": False, "norm_unit_offset": False}
    assert norm_maker(SimpleNamespace(**flags))(8).eps == 1e-3
    with pytest.raises(ValueError, match="norm_bias=True would change nothing: norm=mean has none"):
        norm_maker(SimpleNamespace(**flags | {"norm_bias": True}))


def test_rms_norm_equals_torch_with_and_without_offset():
    theirs = randomise(nn.RMSNorm(24, eps=1e-3))
    for offset in (False, True):
        ours = RMSNorm(24, eps=1e-3, unit_offset=offset)
        assert_close(ours(X), F.rms_norm(X, (24,), eps=1e-3), "same")
        ours.load_state_dict({"scale": theirs.weight - float(offset)})
        assert_close(ours(X), theirs(X), "same")


def test_cosine_norm_gives_every_vector_one_length():
    assert_close(CosineNorm(24)(X).norm(dim=-1), torch.full((2, 5), 24**0.5), "same")
    fixed = CosineNorm(24, affine=False)
    assert_close(fixed(X), X / X.norm(dim=-1, keepdim=True) * 24**0.5, "same")
    assert not list(fixed.parameters()) and not fixed.state_dict()
    assert CosineNorm(24)(torch.zeros(1, 24)).isfinite().all()


def test_dyt_is_its_formula():
    norm = randomise(DyT(24, bias=True))
    assert_close(norm(X), torch.tanh(norm.alpha * X) * norm.scale + norm.bias, "same")
    assert_close(DyT(24)(X), torch.tanh(0.5 * X), "same")


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_of_bfloat16_rounds_only_its_result(kind):
    norm = NORMS[kind](24)
    assert torch.equal(norm(X.bfloat16()), norm(X.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_computes_in_float32_whatever_the_dtypes_of_its_input_and_weights(kind, autocast):
    norms = [randomise(NORMS[kind](24)).to(dtype) for dtype in (torch.bfloat16, torch.float16)]
    exact = [randomise(NORMS[kind](24)).to(norm_dtype).float() for norm_dtype in (torch.bfloat16, torch.float16)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for norm, wide in zip(norms, exact, strict=True):
            for x in (X, X.bfloat16(), X.half()):
                assert norm(x).dtype == x.dtype
                assert_close(norm(x), wide(x.float()).to(x.dtype), "rounding")
            assert_close(norm(X.double()).float(), wide(X), "same")
            assert norm.double()(X.double()).dtype == torch.float64
            assert_close(norm(X), wide(X), "same")


# ---- positions ----


@pytest.mark.parametrize("rope", [RoPE(64), InterleavedRoPE(64, RopeConfig(theta=5e5)),
                                  RoPE(50, RopeConfig(fraction=0.28))], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_rope_turns_by_the_same_angles_in_every_dtype(rope, dtype):
    positions = torch.arange(0, 32_768, 7)
    expected = rope.angles(positions)
    for moved in (copy.deepcopy(rope).to(dtype), copy.deepcopy(rope).to(dtype).float()):
        for found, right in zip(moved.angles(positions), expected, strict=True):
            torch.testing.assert_close(found, right, atol=1e-6, rtol=0)


def test_constants_are_exact_though_the_default_dtype_is_not():
    expected = [RoPE(64).frequencies, ALiBi(12).slopes, SinusoidalPosition(24).frequencies]
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = [RoPE(64).frequencies, ALiBi(12).slopes, SinusoidalPosition(24).frequencies]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("head_dim", "fraction", "count"), [
    (50, 0.28, 14), (100, 0.58, 58), (6, 2 / 3, 4), (24, 0.3333333, 8), (8, 1.0, 8),
])
def test_rope_rotates_the_whole_number_of_channels_that_was_meant(head_dim, fraction, count):
    assert RoPE(head_dim, RopeConfig(fraction=fraction)).rotated == count
    flags = {"attention.head_dim": head_dim, "rope.fraction": fraction}
    assert small_model(**flags).blocks[0].mixer.branch.rotary.rotated == count


@pytest.mark.parametrize(("head_dim", "fraction"), [(8, 0.3), (50, 0.2801), (50, 0.26), (8, 1.5), (8, 0.0), (7, 1.0)])
def test_rope_refuses_what_is_not_a_number_of_pairs(head_dim, fraction):
    for build in (RoPE, InterleavedRoPE):
        with pytest.raises(ValueError, match=f"rope.fraction={fraction:g} of attention.head_dim={head_dim} is "):
            build(head_dim, RopeConfig(fraction=fraction))
    with pytest.raises(ValueError, match=f"rope.fraction={fraction:g} of attention.head_dim={head_dim} is "):
        small_config(**{"attention.head_dim": head_dim, "rope.fraction": fraction})


def turn(rope: RoPE, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return rope(x, rope.angles(positions))


@pytest.mark.parametrize("layout", ROTARY)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rope_makes_scores_depend_on_the_distance_alone(layout, fraction):
    rope = ROTARY[layout](8, RopeConfig(theta=100.0, fraction=fraction))
    q, k = torch.randn(1, 3, 1, 8), torch.randn(1, 3, 1, 8)

    def scores(i: int, j: int) -> torch.Tensor:
        return (turn(rope, q, torch.tensor([i])) * turn(rope, k, torch.tensor([j]))).sum(-1)

    assert_close(scores(19, 14), scores(5, 0), "same")
    assert not torch.allclose(scores(19, 14), scores(19, 13), atol=1e-3)
    assert_close(turn(rope, q, torch.tensor([0])), q, "same")
    untouched = turn(rope, q, torch.tensor([5]))[..., int(8 * fraction):]
    assert torch.equal(untouched, q[..., int(8 * fraction):])


def test_rope_turns_pairs_as_complex_numbers():
    x, positions = torch.randn(2, 3, 5, 8), torch.arange(5) * 3
    angles = positions[:, None] * 100.0 ** -(torch.arange(4) / 4)
    expected = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * torch.polar(torch.ones(5, 4), angles)
    expected = torch.view_as_real(expected).flatten(-2)
    assert_close(turn(InterleavedRoPE(8, RopeConfig(theta=100.0)), x, positions), expected, "same")
    pairs_apart = x.unflatten(-1, (4, 2)).mT.flatten(-2)  # 0 2 4 6 1 3 5 7
    half = turn(RoPE(8, RopeConfig(theta=100.0)), pairs_apart, positions)
    assert_close(half.unflatten(-1, (2, 4)).mT.flatten(-2), expected, "same")


def test_rope_takes_positions_of_each_row():
    rope, x, positions = RoPE(8), torch.randn(2, 3, 5, 8), torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    together = turn(rope, x, positions)
    for row in range(2):
        assert_close(together[row], turn(rope, x[row : row + 1], positions[row])[0], "same")


def test_alibi_slopes_are_the_published_ones():
    eight = [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(8).tolist() == pytest.approx(eight)
    assert alibi_slopes(12).tolist() == pytest.approx(eight + [2.0**-i for i in (0.5, 1.5, 2.5, 3.5)])
    assert alibi_slopes(1).tolist() == pytest.approx([2.0**-8])


def test_alibi_penalises_distance():
    bias = ALiBi(8)(torch.tensor([4, 5]), torch.arange(6))
    assert bias.shape == (8, 2, 6)
    assert bias[1, 0].tolist()[:5] == [-1.0, -0.75, -0.5, -0.25, 0.0]
    rows = ALiBi(8)(torch.tensor([[4], [1]]), torch.arange(6).expand(2, 6))
    assert rows.shape == (2, 8, 1, 6)
    assert_close(rows[0], bias[:, :1], "same")


def test_sinusoids_have_the_published_wavelengths():
    y = SinusoidalPosition(8)(torch.zeros(1, 3, 8), torch.tensor([0, 1, 50]))[0]
    angles = torch.tensor([0.0, 1.0, 50.0])[:, None] / 10_000 ** (torch.arange(4) / 4)
    assert_close(y[:, 0::2], angles.sin(), "same")
    assert_close(y[:, 1::2], angles.cos(), "same")


def test_learned_positions_end():
    learned = LearnedPosition(8, max_seq_len=5)
    assert torch.equal(learned(torch.zeros(1, 5, 8), torch.arange(5))[0], learned.table.weight)
    assert torch.equal(learned(torch.zeros(1, 3, 8), torch.tensor([2, 3, 4]))[0], learned.table.weight[2:])
    with pytest.raises(ValueError, match="max_seq_len=5"):
        learned(torch.zeros(1, 6, 8), torch.arange(6))
    with pytest.raises(ValueError, match="max_seq_len=16"):
        small_model(position="learned")(small_tokens(t=17))


PAST = "^max_seq_len=16: a text of 17 tokens has no learned positions past it"


WINDOWS = {"attention": {"attention.num_kv_heads": 2}, "latent": {"mixer": "latent"}}


@pytest.mark.parametrize("mixer", WINDOWS)
@pytest.mark.parametrize("pieces", [(20, *[1] * 12, 7, *[1] * 9), (3, 30, 1, 1, 13), (1,) * 48], ids=str)
def test_the_cache_of_a_window_has_a_quarter_more_tokens_than_it_and_no_more(mixer, pieces):
    model = small_model(max_seq_len=64, **{"attention.window": 8} | WINDOWS[mixer])
    tokens, cache = small_tokens(t=48), model.make_cache(48)
    with torch.no_grad():
        logits = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
        assert_close(logits, model(tokens), "same")
        with pytest.raises(ValueError, match="the cache holds 48 tokens, not 49"):
            model(tokens[:, :1], cache=cache)
    assert {layer["mixer"].keys.shape[2] for layer in cache.layers} == {10}


@pytest.mark.parametrize("compiled", [False, True])
def test_learned_positions_end_also_where_they_are_given(compiled):
    torch._dynamo.reset()
    model, tokens = small_model(position="learned"), small_tokens()
    run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
    assert_close(run(tokens, positions=torch.arange(13)), model(tokens), "rounding")
    for positions in (torch.arange(13) + 4, torch.arange(13).expand(2, 13) + torch.tensor([[-3], [4]])):
        with pytest.raises(ValueError, match=PAST):
            run(tokens, positions=positions)


def test_learned_positions_end_in_a_cache_that_is_larger():
    model = small_model(position="learned")
    cache = model.make_cache(40)
    model(small_tokens(t=16), cache=cache)
    with pytest.raises(ValueError, match=PAST):
        model(small_tokens(t=1), cache=cache)
    assert cache.length == 16


def test_a_compiled_text_longer_than_the_learned_positions_is_refused_in_the_same_words():
    torch._dynamo.reset()
    with pytest.raises(ValueError, match=PAST):
        torch.compile(small_model(position="learned"), backend="eager", fullgraph=True)(small_tokens(t=17))


def test_learned_positions_end_for_fake_tensors_too():
    with pytest.raises(ValueError, match=PAST):
        shapes(lambda: small_model(position="learned"), "b 17")
    assert shapes(lambda: small_model(position="learned"), "b 16").calls[0].outputs[0].shape == ("b", 16, 37)


def test_a_cache_refuses_more_than_it_holds():
    model = small_model()
    with pytest.raises(ValueError, match="holds 5 tokens, not 6"):
        model(small_tokens(t=6), cache=model.make_cache(5))


def test_replacing_a_flag_leaves_nothing_stale():
    cfg = override(small_config(), {"attention.num_heads": 2, "dim": 40})
    assert (cfg.head_width, cfg.attention.kv_heads, cfg.hidden_width) == (20, 2, 160)


# ---- kinds of layers ----

GEMMA3 = {"num_layers": 6, "max_seq_len": 1024, "layers": ("local",) * 5 + ("global",),
          "kinds": {"local": {"attention.window": 512}, "global": {"rope.theta": 1e6}}}


def test_a_printed_model_and_a_trace_say_which_layer_is_which():
    model = small_model(**GEMMA3)
    printed = [line.strip() for line in str(model).splitlines()]
    assert "(0-4): 5 x Block(" in printed and "(5): Block(" in printed
    assert "local: attention.window=512" in printed and "global: rope.theta=1000000.0" in printed
    with torch.no_grad(), trace(model) as t:
        model(small_tokens())
    assert [call.kind for call in t.walk() if call.kind.startswith("Block")] == ["Block local"] * 5 + ["Block global"]
    assert "blocks.0  Block local" in str(t) and "blocks.5  Block global" in str(t)
    assert "5 × Block local" in parameter_table(model)


def test_layers_of_one_kind_have_no_label():
    model = small_model(layers=("local",), kinds={"local": {"attention.window": 3}})
    assert "local" not in str(model) and model.blocks[0].mixer.branch.pattern.window == 3


def test_each_layer_has_the_numbers_of_its_kind():
    model = small_model(**GEMMA3)
    found = [(block.mixer.branch.pattern.window, block.mixer.branch.rotary.rope.theta) for block in model.blocks]
    assert found == [(512, 1e4)] * 5 + [(None, 1e6)]


# ---- not causal ----


@pytest.mark.parametrize("flags", [{}, {"position": "alibi"}, {"attention.backend": "eager"}], ids=str)
def test_a_model_that_is_not_causal_sees_both_sides_and_no_padding(flags):
    model = randomise(Model(small_config(**flags), causal=False)).eval()
    tokens, other = small_tokens(b=1), small_tokens(b=1)
    other[0, -1] = (tokens[0, -1] + 1) % 37
    assert ((model(tokens) - model(other)).abs().amax(-1) > 1e-6).all()
    padded = torch.cat((torch.zeros(1, 3, dtype=torch.int64), tokens), dim=1)
    assert_close(model(padded, positions=torch.arange(16)[None] - 3)[:, 3:], model(tokens), "same")
    two = torch.cat((tokens, other), dim=1)
    documents = torch.tensor([[0] * 13 + [1] * 13])
    assert_close(model(two, documents=documents), torch.cat((model(tokens), model(other)), dim=1), "same")


# ---- the pointer ----


@pytest.mark.parametrize("packed", [False, True])
def test_a_pointer_is_its_formula(packed):
    model, tokens = small_model(pointer=True, pointer_dim=5), torch.tensor([[3, 7, 3, 3, 9, 7, 1, 3]])
    ids = torch.tensor([[0] * 3 + [1] * 5]) if packed else torch.zeros(1, 8, dtype=torch.int64)
    with torch.no_grad():
        hidden = model.read(tokens, documents=ids if packed else None)
        plain, found = model.head(hidden.last), model.predict(hidden)
        pointer = model.pointer
        q, k = pointer.q(hidden.last)[0], pointer.k(pointer.norm(hidden.first))[0]
        gate = (pointer.gate(hidden.last)[0, :, 0] + pointer.gate_bias).exp()
        for t in range(8):
            seen = [s for s in range(t + 1) if ids[0, s] == ids[0, t]]
            weights = torch.stack([q[t] @ k[s] * 5**-0.5 for s in seen]).softmax(0)
            mass = plain[0, t].exp()
            for weight, s in zip(weights, seen, strict=True):
                mass[tokens[0, s]] += gate[t] * weight
            assert_close(found[0, t], mass.log(), "same")


def test_the_first_place_of_a_token_is_that_of_its_row():
    tokens = torch.tensor([[5, 2, 5, 5, 2, 8], [1, 1, 0, 1, 0, 0]])
    assert first_places(tokens, 9).tolist() == [[0, 1, 0, 0, 1, 5], [0, 0, 2, 0, 2, 2]]


# ---- work ----


def test_flops_are_counted_for_shapes_that_depend_on_the_data(monkeypatch):
    class Sorted(MLP):
        """Every token that is positive somewhere, which is every one, through the MLP."""

        def forward(self, x):
            rows = (x.flatten(0, 1).abs().sum(-1) >= 0).nonzero().squeeze(-1)
            return super().forward(x.flatten(0, 1)[rows]).view_as(x)

    plain = flops_of(small_config(), 16)
    monkeypatch.setitem(MLPS, "mlp", Sorted)
    assert flops_of(small_config(), 16) == plain


def test_parts_are_visited_after_a_step():
    class Counting(nn.Module):
        steps = 0

        def after_step(self):
            self.steps += 1

    model = small_model()
    model.blocks[0].mixer.branch.router = Counting()
    model.after_step()
    assert model.blocks[0].mixer.branch.router.steps == 1
