"""Logits and gradients equal those of Hugging Face's models, with the same random weights.

Every parameter is random, norms and biases too, the text is longer than the window and of odd
length, and each flag that could hide a mistake is changed once: then the logits must differ.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from helpers import TOLERANCES, assert_close, loss_of, randomise
from torch import Tensor, nn

from config import Config, ModelConfig, replace
from model import Model
from presets import load_preset, tiny

transformers = pytest.importorskip("transformers")

T, VOCAB = 19, 61
Weights = dict[str, Tensor]


def shared_sizes(cfg: ModelConfig) -> dict:
    """What Llama and Gemma 2 call alike."""
    return {
        "vocab_size": VOCAB, "hidden_size": cfg.dim, "intermediate_size": cfg.hidden_width,
        "num_hidden_layers": cfg.num_layers, "num_attention_heads": cfg.attention.num_heads, "head_dim": cfg.head_width,
        "num_key_value_heads": cfg.attention.kv_heads, "max_position_embeddings": cfg.max_seq_len,
    }


def make_gpt2(cfg: ModelConfig) -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=cfg.max_seq_len, n_embd=cfg.dim, n_layer=cfg.num_layers,
        n_head=cfg.attention.num_heads,
        attn_implementation="eager"))


def make_llama3(cfg: ModelConfig) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **shared_sizes(cfg), rope_parameters={"rope_type": "default", "rope_theta": 500_000.0}, rms_norm_eps=1e-5,
        attn_implementation="eager"))


def make_gemma2(cfg: ModelConfig) -> nn.Module:
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(
        **shared_sizes(cfg), query_pre_attn_scalar=cfg.head_width, sliding_window=5, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0, pad_token_id=None, attn_implementation="eager"))


def from_gpt2(theirs: Weights, layers: int) -> Weights:
    """Conv1D keeps its matrices transposed, and queries, keys and values in one."""
    ours = {"embed.tokens.weight": theirs["transformer.wte.weight"],
            "embed.position.table.weight": theirs["transformer.wpe.weight"]}
    norms = {"norm": "transformer.ln_f"}
    for i in range(layers):
        layer, block = f"transformer.h.{i}", f"blocks.{i}"
        norms |= {f"{block}.mixer.norm": f"{layer}.ln_1", f"{block}.mlp.norm": f"{layer}.ln_2"}
        for end in ("weight", "bias"):
            qkv = theirs[f"{layer}.attn.c_attn.{end}"].t().chunk(3)
            ours |= {f"{block}.mixer.branch.{name}.{end}": x for name, x in zip("qkv", qkv, strict=True)}
            for name, other in (("mixer.branch.out", "attn.c_proj"), ("mlp.branch.up", "mlp.c_fc"),
                                ("mlp.branch.out", "mlp.c_proj")):
                ours[f"{block}.{name}.{end}"] = theirs[f"{layer}.{other}.{end}"].t()
    ours |= {f"{norm}.scale": theirs[f"{other}.weight"] for norm, other in norms.items()}
    return ours | {f"{norm}.bias": theirs[f"{other}.bias"] for norm, other in norms.items()}


LINEARS = {"mixer.branch.q": "self_attn.q_proj", "mixer.branch.k": "self_attn.k_proj",
           "mixer.branch.v": "self_attn.v_proj", "mixer.branch.out": "self_attn.o_proj",
           "mlp.branch.gate": "mlp.gate_proj", "mlp.branch.up": "mlp.up_proj", "mlp.branch.out": "mlp.down_proj"}
LLAMA_NORMS = {"mixer.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"}
GEMMA2_NORMS = {"mixer.norm": "input_layernorm", "mixer.post_norm": "post_attention_layernorm",
                "mlp.norm": "pre_feedforward_layernorm", "mlp.post_norm": "post_feedforward_layernorm"}


def from_llama_family(theirs: Weights, layers: int, *, norms: dict[str, str]) -> Weights:
    ours = {"embed.tokens.weight": theirs["model.embed_tokens.weight"], "norm.scale": theirs["model.norm.weight"]}
    for i in range(layers):
        ours |= {f"blocks.{i}.{name}.weight": theirs[f"model.layers.{i}.{other}.weight"]
                 for name, other in LINEARS.items()}
        ours |= {f"blocks.{i}.{name}.scale": theirs[f"model.layers.{i}.{other}.weight"]
                 for name, other in norms.items()}
    return ours


def from_llama3(theirs: Weights, layers: int) -> Weights:
    return from_llama_family(theirs, layers, norms=LLAMA_NORMS) | {"head.unembed.weight": theirs["lm_head.weight"]}


def from_gemma2(theirs: Weights, layers: int) -> Weights:
    return from_llama_family(theirs, layers, norms=GEMMA2_NORMS)


REFERENCES: dict[str, tuple[Callable, Callable]] = {
    "gpt2": (make_gpt2, from_gpt2), "llama3": (make_llama3, from_llama3), "gemma2": (make_gemma2, from_gemma2),
}
# flags that leave the weights as they are, with a wrong value each
MUTATIONS = {
    "gpt2": {"norm_eps": 1e-3, "activation": "gelu", "attention.scale": 0.2, "norm": "rms", "logit_scale": 1.01,
             "embed_scale": "sqrt_dim", "residual_scale": 0.99, "residual": "post", "attention.softcap": 5.0},
    "llama3": {"norm_eps": 1e-6, "activation": "gelu_tanh", "attention.scale": 0.2, "rope.theta": 10_000.0,
               "rope.layout": "interleaved", "rope.fraction": 0.5, "norm_unit_offset": True, "attention.window": 18,
               "norm": "layer", "residual": "branch_post"},
    "gemma2": {"norm_eps": 1e-5, "activation": "gelu", "attention.scale": 0.2, "rope.theta": 500_000.0,
               "rope.layout": "interleaved", "norm_unit_offset": False, "kinds.local.attention.window": 6,
               "layers": ("global", "local"),
               "attention.softcap": None, "logit_softcap": None, "embed_scale": 1.0, "norm": "layer"},
}


@functools.cache
def pair(preset: str) -> tuple[ModelConfig, nn.Module, Weights]:
    """(our configuration at toy size, their model with random weights, ours from theirs)."""
    make, convert = REFERENCES[preset]
    cfg = tiny(load_preset(preset, Config()), vocab_size=VOCAB, max_seq_len=32).model
    cfg = replace(cfg, num_layers=3, **dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout"), 0.0))
    theirs = randomise(make(cfg)).eval()
    return cfg, theirs, convert(dict(theirs.named_parameters()), cfg.num_layers)


def ours_with(cfg: ModelConfig, weights: Weights) -> Model:
    """Our model with these weights; each of its parameters has one, and none is left over."""
    model = Model(cfg)
    own = dict(model.named_parameters())
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    return model


def text() -> Tensor:
    return torch.randint(VOCAB, (2, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("preset", REFERENCES)
def test_logits_are_equal(preset):
    cfg, theirs, weights = pair(preset)
    logits, expected = ours_with(cfg, weights)(text()), theirs(text()).logits
    assert expected.std() > 0.1
    assert_close(logits, expected, "parity")


@pytest.mark.parametrize("preset", REFERENCES)
def test_gradients_are_equal(preset):
    cfg, theirs, weights = pair(preset)
    ours, tokens = ours_with(cfg, weights), text()
    loss_of(ours, tokens[:, :-1], tokens[:, 1:]).backward()
    theirs.zero_grad()
    theirs(tokens, labels=tokens).loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = REFERENCES[preset][1](gradients, cfg.num_layers)
    assert_close({name: parameter.grad for name, parameter in ours.named_parameters()}, expected, "parity_grad")


@pytest.mark.parametrize(("preset", "flag"), [(preset, flag) for preset in MUTATIONS for flag in MUTATIONS[preset]])
def test_a_wrong_flag_breaks_the_equality(preset, flag):
    cfg, theirs, weights = pair(preset)
    model, tokens = Model(replace(cfg, **{flag: MUTATIONS[preset][flag]})), text()
    model.load_state_dict({name: weights[name] for name, _ in model.named_parameters()}, strict=False)
    with torch.no_grad():
        assert not torch.allclose(model(tokens), theirs(tokens).logits, **TOLERANCES["parity"])
