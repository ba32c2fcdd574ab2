"""The families at toy size: configurations, and models of Hugging Face with random weights."""

import re

import torch
import transformers
from helpers import randomise
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from config import Config, ModelConfig, override, replace
from families import FAMILIES
from families.family import Family
from families.sizing import attends, is_whole
from families.weights import weights_of
from presets import load_preset, tiny

VOCAB = 61
FAMILY_OF = {preset: family for family in FAMILIES.values() for preset in family.presets}
WITHOUT_PRESET = {name: family for name, family in FAMILIES.items() if not family.presets}
# forms that no preset and no default has: fields of config.json, with the family they are of
FORMS = {"defaults": ("apertus", {"hidden_act": "relu2"}),
         "head-norms": ("stablelm", {"qk_layernorm": True}),
         "fixed-ntk": ("hunyuan_v1_dense", {"rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0}}),
         "partial": ("phi3", {"partial_rotary_factor": 0.75, "sliding_window": 2047}),
         "thetas": ("granite_swa", {"layer_rope_theta": [0, 50, 10_000, 50] * 6}),
         "llama4-scaled": ("llama4_text", {"rope_scaling": {  # with QK-norm, and experts in every layer
             "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 8192}}),
         "near-experts": ("phimoe", {"router_jitter_noise": 1.0, "lm_head_bias": True}),
         "cohere-dense": ("cohere2_moe", {  # a dense layer, an expert of all tokens, sigmoids, RMSNorm
             "first_k_dense_replace": 1, "num_hidden_layers": 6, "prefix_dense_intermediate_size": 45056,
             "num_shared_experts": 1, "shared_expert_combination_strategy": "sum", "expert_selection_fn": "sigmoid",
             "norm_topk_prob": False, "rms_norm_eps": 1e-6}),
         "nemotron-experts": ("nemotron_h", {}),
         "falcon-multiplied": ("falcon_h1", {  # every factor, also beside biases, and the norm of Mamba-2
             "attention_in_multiplier": 0.8, "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25,
             "ssm_out_multiplier": 0.6, "mlp_multipliers": [0.88, 0.59], "ssm_multipliers": [0.35, 0.75, 1.4, 0.5, 0.6],
             "mamba_rms_norm": True, "mamba_d_ssm": None, "attention_bias": True, "mlp_bias": True,
             "mamba_proj_bias": True, "projectors_bias": True}),
         "glm-qk-norm": ("glm4_moe", {"use_qk_norm": True}),
         "indexed-yarn": ("deepseek_v32", {"rope_scaling": {
             "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
             "mscale": 0.5, "mscale_all_dim": 1.0}}),
         "granite-shared": ("granitemoeshared", {"shared_intermediate_size": 1024})}
# fields without which the defaults of a class are no model, or its router has no choice
NEEDED = {"bamba": {"attn_layer_indices": [9, 18, 27]},
          "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
          "glm4_moe": {"head_dim": 128}, "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 64, "moe_topk": 8}}


# the id of padding of classes that must have one, whose vector gets no gradient: it is not in the text of the tests
PADDING = {"modernbert-decoder": 3}


def ends(family: Family) -> dict[str, int | None]:
    """The special tokens of a config.json, of which a small vocabulary has few."""
    return {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": PADDING.get(family.model_type)}


def toy(name: str, *, vocab_size: int = VOCAB) -> ModelConfig:
    """A preset, or a family's defaults, at toy size: a layer more than a pattern has, and no dropout."""
    if name in FAMILY_OF:
        return shrunk(load_preset(name), vocab_size)
    family, cfg = family_of(name), full_size(name)
    sizes = {"dim": 64, "attention.num_heads": 4}
    if attends(cfg):
        kv_heads = min(cfg.attention.kv_heads, 2 if cfg.attention.num_kv_heads else 4)
        sizes["attention.num_kv_heads"] = kv_heads
    cfg = override(shrunk(replace(Config(), model=cfg), vocab_size), sizes)
    return family.read(family.write(cfg))  # of the sizes, those that it can have


def full_size(name: str) -> ModelConfig:
    """A preset, or the defaults of a family or of a form of it."""
    if name in FAMILY_OF:
        return load_preset(name).model
    family = family_of(name)
    return family.read(NEEDED.get(family.model_type, {}) | FORMS.get(name, ("", {}))[1])


def shrunk(full: Config, vocab_size: int) -> ModelConfig:
    cfg = tiny(full, vocab_size=vocab_size, max_seq_len=32).model
    off = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout"), 0.0)
    off |= {} if cfg.attention.scale is None else {"attention.scale": 1 / 3}  # that of narrower heads
    off |= {"logit_scale": max(cfg.logit_scale, 0.25)}  # logits of narrower models are smaller
    if cfg.beside != "none":  # so are states
        off |= {"mamba2.scales": tuple(4 * scale for scale in cfg.mamba2.scales)}
    off |= {} if cfg.attention.clip is None else {"attention.clip": 0.4}  # below the largest values
    if cfg.mixer == "mlstm":  # as wide as their cache is
        off |= {"mlstm.num_heads": 8, "mlstm.key_dim": 8, "mlstm.head_dim": 16}
    off |= {"llama3": {"rope.original_len": 8, "rope.theta": 50.0},  # shorter than a text
            "yarn": {"rope.original_len": 30, "rope.theta": 100.0, "rope.beta_fast": 8.0, "rope.beta_slow": 0.5},
            }.get(cfg.rope.scaling, {})
    if any(layer.attention.temperature_scale for layer in cfg.by_kind.values()):  # shorter than a text
        off |= {"attention.temperature_len": 8} | ({"rope.original_len": 8} if cfg.rope.scaling == "yarn" else {})
    off |= dict.fromkeys(("moe.balance_loss", "moe.router_z_loss"), 0.0)  # theirs have none of these
    return override(cfg, off | {"num_layers": len(cfg.layers) + (not is_whole(full.model))})


def family_of(name: str) -> Family:
    return FAMILY_OF.get(name) or FAMILIES[FORMS[name][0] if name in FORMS else name]


SOME_OF_PRESETS = list({toy(preset): preset for preset in reversed(FAMILY_OF)}.values())[::-1]  # sizes do not matter
TOYS = [*SOME_OF_PRESETS, *FORMS, *WITHOUT_PRESET]


def tensors_of(theirs: nn.Module, values: dict | None = None) -> dict:
    """Their weights, or other values of them such as gradients, under the names that they have in files."""
    found = values or weights_of(theirs)
    named = {name: value for name, value in found.items() if name in dict(theirs.named_parameters())
             or name.endswith("e_score_correction_bias")}
    converted = ("experts", "linear_attn", "model.layers.0.mixer.")
    if not any(part in name for name in named for part in converted):
        return named
    return revert_weight_conversion(theirs, named)


def together(tensors: dict) -> dict:
    """Tensors with the convolutions of queries, keys and values in one, which files cut in any place."""
    found: dict = {}
    for name in sorted(tensors, key=lambda name: "qkv".find(name.partition("_conv1d")[0][-1])):  # in this order
        found.setdefault(re.sub(r"\.[qkv]_conv1d", ".conv1d", name), []).append(tensors[name])
    return {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in found.items()}


def build_theirs(config: dict) -> nn.Module:
    """Their model of a config.json, every parameter and buffer that is saved random."""
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager")
    return randomise(theirs).eval()
