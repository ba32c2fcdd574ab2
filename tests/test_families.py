"""Every family gives the logits and gradients of Hugging Face's models, and its config.json is read and written.

Every parameter and buffer is random, norms and biases too, the text is longer than the window and of odd length, there
is one layer more than a pattern has, and each flag that could hide a mistake is changed once: then the logits must
differ.
"""

import functools
import json
from collections.abc import Iterable, Iterator

import pytest
import torch
from helpers import TOLERANCES, assert_close, loss_of
from thorough import further, some
from torch import Tensor, nn

from config import ModelConfig, flat, get, override
from configuration.acting import mixers_of
from configuration.plain import PLAIN_MODEL
from configuration.recurrent import RECURRENT
from families import FAMILIES
from families.differences import NO_MATTER, differences
from families.family import Family, Part
from families.fields import Field, Implied
from families.layers import Rope, Windows
from families.weights import weights_of
from model import Model
from presets import PRESETS
from tools import unfilled

transformers = pytest.importorskip("transformers")
from small_families import (  # noqa: E402
    FAMILY_OF,
    NEEDED,
    TOYS,
    VOCAB,
    WITHOUT_PRESET,
    build_theirs,
    ends,
    family_of,
    full_size,
    tensors_of,
    together,
    toy,
)

T = 19
each_toy = pytest.mark.parametrize("preset", TOYS, scope="module")  # all tests of one stand together
each_third = pytest.mark.parametrize("preset", some(TOYS, 3), scope="module")


@functools.lru_cache(maxsize=1)
def pair(preset: str) -> tuple[ModelConfig, nn.Module, Model]:
    """(our configuration at toy size, their model with random weights, ours with the same)."""
    cfg, family = toy(preset), family_of(preset)
    theirs = build_theirs(family.write(cfg) | ends(family))
    assert type(theirs).__name__ == family.architecture
    return cfg, theirs, ours_with(family, cfg, tensors_of(theirs))


def ours_with(family: Family, cfg: ModelConfig, theirs: dict[str, Tensor]) -> Model:
    """Our model with their weights; each of its parameters has one, and none is left over."""
    model = Model(cfg)
    own = weights_of(model)
    weights = dict(family.weights.to_ours(cfg, own, theirs))
    assert weights.keys() == own.keys()
    assert {name for pair in family.weights.pairs(cfg, own) for name in pair.theirs} == theirs.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    return model.eval()


def text() -> Tensor:
    return torch.randint(VOCAB, (2, T), generator=torch.Generator().manual_seed(1))


# ---- parity ----


@each_toy
def test_logits_are_equal(preset):
    _, theirs, ours = pair(preset)
    with torch.no_grad():
        logits, expected = ours(text()), theirs(text()).logits
    assert expected.std() > 0.02
    assert_close(logits, expected, "parity")


@each_toy
def test_gradients_are_equal(preset):
    cfg, theirs, ours = pair(preset)
    tokens = text()
    ours.zero_grad()
    loss_of(ours, tokens[:, :-1], tokens[:, 1:]).backward()
    theirs.zero_grad()
    theirs(tokens, labels=tokens).loss.backward()
    gradients = tensors_of(theirs, {name: parameter.grad for name, parameter in theirs.named_parameters()
                                    if parameter.requires_grad})
    own = dict(ours.named_parameters())
    expected = dict(family_of(preset).weights.to_ours(cfg, own, gradients))
    expected = {name: gradient for name, gradient in expected.items() if gradient is not None}  # theirs has no loss
    assert own.keys() - expected.keys() == {name for name in own if ".indexer." in name}        # of an indexer
    assert_close({name: own[name].grad for name in expected}, expected, "parity_grad")


@each_toy
def test_weights_return_as_they_came(preset):
    cfg, theirs, ours = pair(preset)
    back, saved = together(family_of(preset).weights.to_theirs(cfg, weights_of(ours))), together(tensors_of(theirs))
    assert back.keys() == saved.keys()
    skipped = {name for name in saved if "embed_positions" in name}  # has rows that no token reads
    for name in saved.keys() - skipped:
        torch.testing.assert_close(back[name], saved[name], rtol=0, atol=0)


@each_third
def test_cached_ragged_and_packed_rows_are_equal_too(preset):
    _, theirs, ours = pair(preset)
    one, (other, last) = text()[:1], text()[1:].split((T - 6, 6), dim=1)  # as long as both of a row of the next
    with torch.no_grad():
        first, second, third = (theirs(row).logits for row in (one, other, torch.cat((other, last), dim=1)))
        cache = ours.make_cache(T)
        pieces = [ours(piece, cache=cache) for piece in one.split((7, 1, 1, 10), dim=1)]
        assert_close(torch.cat(pieces, dim=1), first, "parity")

        padded, starts = torch.cat((one, nn.functional.pad(other, (6, 0)))), torch.tensor([[0], [6]])
        cache = ours.make_cache(T + 6)
        ragged = ours(padded, positions=torch.arange(T) - starts, cache=cache)
        after = ours(last.expand(2, -1), positions=torch.arange(T, T + 6) - starts, cache=cache)
        assert_close(ragged[:1], first, "parity")
        assert_close(ragged[1:, 6:], second, "parity")
        assert_close(after[1:], third[:, -6:], "parity")

        packed = ours(torch.cat((other, last), dim=1), documents=torch.arange(T)[None] // (T - 6))
        assert_close(packed, torch.cat((second, theirs(last).logits), dim=1), "parity")


# another value of each flag that leaves the weights as they are; of several the first that is legal
OTHERS = {
    "norm_eps": (1e-2,), "norm": ("layer", "rms"), "activation": ("relu", "silu"), "norm_unit_offset": (True, False),
    "residual": ("branch_post", "post", "pre"), "position": ("none", "alibi"), "rope.theta": (77.0,),
    "rope.layout": ("interleaved", "half"), "rope.fraction": (0.5, 1.0), "attention.window": (3, None),
    "attention.chunk": (3, None), "indexer.top_k": (4,),
    "attention.softcap": (0.2, None), "attention.scale": (0.123,), "logit_softcap": (2.0, None),
    "logit_scale": (1.1,), "embed_scale": (1.1,), "residual_scale": (0.9,), "skip_scale": (1.3,),
    "mixer_scales": ((1.1, 0.7),), "beside_scales": ((1.4, 0.4),), "mlp_scales": ((0.7, 0.8),),
    "lightning.norm_eps": (1e-2,), "lightning.by_depth": (False,), "short_conv.length": (4,),
    "qk_norm": ("head", "full", "none"),
    "rope.scaling": ("linear", "ntk"), "rope.factor": (5.0,),
    "attention.clip": (0.7, None), "attention.qk_norm_bias": (True,), "attention.sinks": (False,),
    "attention.qk_norm_after_rope": (True, False),
    "rope.truncate": (True, False), "moe.renormalise": (True, False), "moe.scale": (1.1,), "moe.top_k": (1, 2),
    "moe.scores": ("sigmoid", "softmax"), "moe.margin": (0.9,), "moe.weigh_inputs": (True, False),
    "moe.num_groups": (2, 1), "moe.top_groups": (1,), "moe.balance_logits": (True, False),
    "clamped_glu.limit": (0.05,), "clamped_glu.offset": (0.7,),
    "mlstm.gate_cap": (0.5,), "mlstm.eps": (0.3,), "mlstm.norm_eps": (0.1,),
    "attention.temperature_scale": (0.3,), "attention.temperature_len": (3,),
    "attention.temperature_first": (1, 0),
    "mamba.norms": ("plain", "none"), "mamba.norm_eps": (0.1,),
    **{f"mamba2.{name}": values for name, values in {
        "norm": ("before_gate", "after_gate"), "norm_eps": (0.1,), "min_step": (0.9,), "max_step": (0.1,),
        "scales": ((0.4, 0.3, 0.5, 0.6, 0.7),)}.items()},
    "sinusoidal.theta": (77.0,), "sinusoidal.layout": ("interleaved", "half"), "sinusoidal.first": (1,),
    **{f"{word}.{flag}": values for word in ("gated_delta", "kda") for flag, values in {
        "neg_eigenvalues": (True, False), "norm_eps": (1e-2,)}.items()}, "kda.decay_bound": (5.0,),
    "head_dense": ("silu",), "embed_norm": (False,), "final_norm": (False, True), "pointer": (False,),
}


def unlike(presets: Iterable[str]) -> Iterator[str]:
    """Those that set a flag which none before them sets."""
    known: set[str] = set()
    for preset in presets:
        asked = {name.split(".", 2)[-1] if name.startswith("kinds.") else name for name in asked_of(preset)}
        if asked - known:
            yield preset
        known |= asked


def asked_of(preset: str) -> set[str]:
    """The flags that a preset, or a family without one, sets to what a plain model does not have."""
    flags = PRESETS[preset]["model"] if preset in PRESETS else flat(toy(preset))
    return {name for name, value in flags.items() if value != PLAIN_MODEL.get(name, ()) or name not in PLAIN_MODEL}


UNLIKE = set(unlike(TOYS))  # which together have every flag that a family sets


def mutations(cfg: ModelConfig, shapes: dict[str, torch.Size], turn: int) -> Iterator[tuple[str, Model]]:
    """(flag, a model with that flag changed), for each flag that leaves the names and shapes of the weights.

    Flags that a family leaves plain take turns: each is changed in every third family.
    """
    of_kinds = {name: name.split(".", 2)[-1] for name in flat(cfg) if name.startswith("kinds.")}
    named: dict = OTHERS | {name: OTHERS[flag] for name, flag in of_kinds.items() if flag in OTHERS}
    if cfg.embed_norm:  # which undoes a factor before it
        del named["embed_scale"]
    if cfg.residual == "branch_post" and cfg.moe.shared_dim is None:  # so does a norm after experts alone
        del named["moe.scale"]
    if all(layer.attention.temperature_scale is None for layer in cfg.by_kind.values()):
        del named["attention.temperature_scale"]  # which acts in longer texts
    absent = RECURRENT.keys() - {word for layer in cfg.by_kind.values() for word in mixers_of(layer)}
    for number, (name, values) in enumerate(named.items(), turn):
        if number % 3 and get(cfg, name) == PLAIN_MODEL.get(name, ()):
            continue
        tried = values if name.partition(".")[0] not in absent else ()  # they would be ignored
        if model := next(filter(None, (with_same_weights(cfg, name, value, shapes) for value in tried)), None):
            yield name, model
    if len(set(cfg.layers)) > 1:
        model = Model(override(cfg, {"layers": (*cfg.layers[1:], cfg.layers[0])}))
        if all(shapes.get(name, shape) == shape for name, shape in shapes_of(model).items()):
            yield "layers", model


def with_same_weights(cfg: ModelConfig, name: str, value: object, shapes: dict[str, torch.Size]) -> Model | None:
    """A model with another value of a flag; None if it has other weights, or the flag would change nothing."""
    try:
        changed = override(cfg, {name: value})
    except ValueError:  # a flag that would be ignored, or is not legal with others
        return None
    if value == get(cfg, name) or not differences(cfg, changed):
        return None
    model = Model(changed)
    return model if shapes_of(model) == shapes else None


def shapes_of(model: Model) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


# flags of presets that say how many weights there are, or nothing about the logits
IN_WEIGHTS = {"dim", "num_layers", "hidden_dim", "vocab_size", "max_seq_len", "attention.num_heads",
              "attention.num_kv_heads", "attention.head_dim", "tie_embeddings", "mlp", "mlp_bias", "norm_bias",
              "head_bias", "skip_first_norm", "norm_affine", "attention.qk_norm_affine", "kinds", "layers",
              "rope.original_len", "moe.expert", "moe.num_experts", "moe.shared_dim",
              "moe.shared_gate", "moe.router_bias", "moe.balance_bias"}
IN_WEIGHTS |= {f"{word}.{name}" for word in ("gated_delta", "kda") for name in (
    "num_heads", "num_key_heads", "key_dim", "value_dim", "conv_len", "num_updates", "gate", "rank", "gate_bias")}


@pytest.mark.parametrize("preset", [preset if preset in UNLIKE else further(preset) for preset in TOYS], scope="module")
def test_a_wrong_flag_breaks_the_equality_and_each_that_a_preset_sets_is_changed_or_counts_weights(preset):
    cfg, theirs, ours = pair(preset)
    state, shapes, tried, unnoticed = ours.state_dict(), shapes_of(ours), set(), []
    with torch.no_grad():
        expected = theirs(text()).logits
        for flag, model in mutations(cfg, shapes, TOYS.index(preset)):
            tried.add(flag)
            model.load_state_dict(state, strict=False)
            if torch.allclose(model(text()), expected, **TOLERANCES["parity"]):
                unnoticed.append(f"{flag}={get(model.cfg, flag)}")
    assert not unnoticed
    for name in asked_of(preset) - IN_WEIGHTS - NO_MATTER - tried:
        others = [value for value in OTHERS.get(name, (False,)) if value != get(cfg, name)]
        assert any(differs(cfg, name, value, shapes) for value in others), f"{name} has no other value in OTHERS"


def differs(cfg: ModelConfig, name: str, value: object, shapes: dict) -> bool:
    """Whether a flag changes the names or shapes of weights, or may not be changed alone."""
    try:
        changed = override(cfg, {name: value})
    except ValueError:
        return True
    with unfilled():
        return shapes_of(Model(changed)) != shapes


# ---- config.json ----


@each_third
def test_other_values_of_the_fields_of_a_config_json_are_equal_too(preset):
    family = family_of(preset)
    written = family.write(toy(preset))
    for part in family.fields:
        written |= other_values(part, written)
    implied = {part.name for part in family.fields if isinstance(part, Implied)}
    written = {name: value for name, value in written.items() if value is not None and name not in implied}
    written |= {name: value for name, value in family.write(family.read(written)).items() if name in implied}
    theirs = build_theirs(written | ends(family))
    cfg = family.read(theirs.config.to_dict())
    assert not family.misfits(cfg)
    with torch.no_grad():
        logits = ours_with(family, cfg, tensors_of(theirs))(text())
        assert_close(logits, theirs(text()).logits, "parity")


def other_values(part: Part, written: dict) -> dict:
    """Fields with another value: switches are turned, numbers that are no sizes are larger, or 2 if they are large."""
    if isinstance(part, Windows):
        windows = {"sliding_window": 4, "layer_types": None, "use_sliding_window": True, "max_window_layers": 1}
        return {name: value for name, value in windows.items() if name in part.names and not part.nope}
    if isinstance(part, Rope) and "rope_type" in written["rope_parameters"]:
        own = written["rope_parameters"]
        partial = {"partial_rotary_factor": 0.5 if own["partial_rotary_factor"] == 1 else 1.0} if part.fraction else {}
        return {"rope_parameters": own | {"rope_theta": 77.0} | partial}
    value = written.get(part.name) if isinstance(part, Field) else None
    if isinstance(value, bool):
        return {part.name: not value}
    if isinstance(value, float) or value is not None and "attention.scale" in part.own_flags:
        return {part.name: type(value)(0.05 if 0 < value < 0.01 else 1.25 * value if value <= 2 else 2)}
    return {}


@pytest.mark.parametrize("preset", [*FAMILY_OF, *WITHOUT_PRESET])
def test_a_config_json_returns_as_it_came(preset):
    family, cfg = family_of(preset), full_size(preset)
    assert not family.misfits(cfg)
    theirs = transformers.AutoConfig.for_model(**family.write(cfg))
    read = family.read(json.loads(theirs.to_json_string(use_diff=False)))
    assert not differences(read, cfg)
    again = transformers.AutoConfig.for_model(**family.write(read))
    assert again.to_dict() == theirs.to_dict()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_a_config_json_leaves_out_has_the_default_of_their_class(model_type):
    family = FAMILIES[model_type]
    needed = NEEDED.get(model_type, {})
    theirs = transformers.AutoConfig.for_model(model_type, **needed)
    assert not differences(family.read(needed), family.read(theirs.to_dict()))


def test_a_model_without_an_indexer_is_no_deepseek_v32():
    family = FAMILIES["deepseek_v32"]
    dense = FAMILIES["deepseek_v3"].read({"rope_interleave": True})
    assert "index_topk=None, attention without an indexer, is not known here" in family.misfits(dense)[0]
    assert "model.indexer.top_k=2048, and a DeepseekV3ForCausalLM has None" in FAMILIES["deepseek_v3"].misfits(
        family.read({}))


def test_older_fields_are_read():
    assert FAMILIES["gemma"].read({"hidden_act": "gelu"}).activation == "gelu_tanh"  # as its first configurations say
    old = {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16", "auto_map": {"AutoConfig": "x.y"}}
    assert FAMILIES["llama"].read(old).rope.theta == 5e5
    gemma3 = FAMILIES["gemma3_text"].read({"rope_local_base_freq": 1e3, "rope_theta": 1e5, "sliding_window_pattern": 2})
    assert gemma3.at(0).rope.theta == 1e3 and gemma3.at(1).rope.theta == 1e5 and len(gemma3.layers) == 2
    assert FAMILIES["internlm3"].read({"qkv_bias": True, "bias": True}).mlp_bias
    assert FAMILIES["gpt2"].read({"n_embd": 12, "n_head": 1}).hidden_width == 48  # not rounded up
    assert FAMILIES["minimax_m2"].read({"rotary_dim": 64}).rope.fraction == 0.5
    ernie = FAMILIES["ernie4_5_moe"].read({"moe_layer_interval": 3, "moe_layer_end_index": 20})
    assert [i for i in range(28) if ernie.at(i).mlp == "moe"] == [2, 5, 8, 11, 14, 17, 20]
    granite = FAMILIES["granite_swa"].read({"layer_rope_theta": [0, 1e4, 1e4, 5e5] * 6})
    assert [granite.at(i).position for i in range(5)] == ["none", "rope", "rope", "rope", "none"]
    assert granite.at(3).rope.theta == 5e5 and granite.at(3).attention.window == 128


@pytest.mark.parametrize(("model_type", "wrong", "sentence"), [
    ("llama", {"rope_scaling": {"rope_type": "surprise", "factor": 8.0}}, "rope_type='surprise' is not known here"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mscale": 2.0}}, "mscale"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}, which may change what"),
    ("llama", {"hidden_act": "swiglu"}, "hidden_act='swiglu' is not known here"),
    ("llama", {"hidden_size": "wide"}, "dim"),
    ("llama", {"hidden_size": [1]}, "dim"),
    ("llama", {"num_hidden_layers": 10**12}, "is not a number of layers"),
    ("gptj", {"n_positions": 10**12}, "is not a number of tokens of context"),
    ("gptj", {"n_head": 0}, "rotary_dim=64 is wrong"),
    ("llama", {"vocab_size": None}, "vocab_size=None is not a number"),
    ("granite", {"logits_scaling": 0}, "logits_scaling=0 is wrong"),
    ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers has 1 layers, and num_hidden_layers=36"),
    ("mpt", {"n_heads": 12}, "n_heads=12 is not a power of two"),
    ("mpt", {"attn_config": {"clip_qkv": 8.0}}, "attn_config has clip_qkv=8.0"),
    ("opt", {"word_embed_proj_dim": 512}, "word_embed_proj_dim=512 is not 768, as the other fields say"),
    ("falcon", {"alibi": True}, "alibi=True"),
    ("internlm3", {"qkv_bias": True, "bias": False}, "mlp_bias=False is not True, as the other fields say"),
    ("internlm3", {"qkv_bias": True, "attention_bias": False}, "attention_bias=False, which are one field"),
    ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type='yarn' is not known here: only default"),
    ("hunyuan_v1_dense", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic' is not known"),
    ("helium", {"head_dim": 64}, "head_dim=64 is not 128"), ("openai-gpt", {"afn": "gelu_new"}, "afn='gelu_new'"),
    ("gpt_neo", {"num_layers": 3}, "layer_types has 24 layers, and num_hidden_layers=3"),
    ("gpt_neo", {"attention_layers": ["local"] * 24}, "attention_layers is not what attention_types says"),
    ("gpt_bigcode", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("granite_swa", {"layer_rope_theta": [0]}, "layer_rope_theta has 1 layers, and num_hidden_layers=24"),
    ("ministral", {"sliding_window_pattern": 2}, "sliding_window_pattern=2"),
    ("gemma2", {"sliding_window_pattern": 2}, "sliding_window_pattern=2"),
    ("persimmon", {"hidden_dropout": 0.1}, "hidden_dropout=0.1"),
    ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2 needs new_decoder_architecture=True"),
    ("gemma3_text", {"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}}, "rope_type='dynamic' is not known"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "has no original_max_position_embeddings"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False, which is not known here"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 26}, "'chunked_attention', which is not known"),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types has 1 layers, and num_hidden_layers=26"),
    ("ministral3", {"rope_parameters": {"rope_type": "default"}}, "rope_parameters has no llama_4_scaling_beta"),
    ("llama4_text", {"attention_chunk_size": None}, "and attention_chunk_size a number"),
    ("cohere2_moe", {"num_shared_experts": 1}, "shared_expert_combination_strategy='average' is not known here"),
    ("hy_v3", {"mlp_layer_types": ["dense"]}, "mlp_layer_types is not a list of dense or sparse for each of the 80"),
    ("ernie4_5_moe", {"use_bias": True}, "use_bias=True"), ("dots1", {}, "n_shared_experts=None"),
    ("hunyuan_v1_moe", {"moe_topk": [1, 2]}, "top_k"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0 is wrong"),
])
def test_a_field_that_is_not_understood_is_refused_by_name(model_type, wrong, sentence):
    with pytest.raises(ValueError, match=".") as error:
        FAMILIES[model_type].read(wrong)
    assert sentence in str(error.value)


@pytest.mark.parametrize(("model_type", "changes", "flag"), [
    ("llama", {"mlp": "mlp"}, "model.mlp=mlp"), ("llama", {"qk_norm": "head"}, "model.qk_norm=head"),
    ("llama", {"rope.fraction": 0.5}, "model.rope.fraction=0.5"), ("llama", {"residual": "post"}, "model.residual="),
    ("llama", {"pointer": True}, "model.pointer=True"), ("llama", {"attention.q_bias": True}, "_bias="),
    ("persimmon", {}, "model.attention.num_kv_heads=2"), ("openai-gpt", {"activation": "mish"}, "activation=mish"),
    ("llama", {"layers": ("base", "none")}, "model.mixer=none"),
])
def test_a_family_names_the_flag_that_it_cannot_express(model_type, changes, flag):
    cfg = override(toy("llama3"), changes)
    assert flag in "; ".join(FAMILIES[model_type].misfits(cfg))
