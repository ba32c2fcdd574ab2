"""LFM2, Liquid AI 2025, arXiv:2511.23404: gated short convolutions, and attention in a third of the layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import Field, PerLayer, Theirs, llama_sizes, tied, unusual_head_dim
from families.layers import FULL, Rope
from families.weights import HEAD, Fused, Same, Taps, WeightMap, renamed

MIXERS = {"conv": "short_conv", FULL: "attention"}
FIXED = {"mlp": "glu", "norm": "rms", "activation": "silu", "qk_norm": "head"}
LENGTH, BIAS = "conv_L_cache", "conv_bias"
ADJUST, MULTIPLE, FACTOR = "block_auto_adjust_ff_dim", "block_multiple_of", "block_ffn_dim_multiplier"


@dataclass(frozen=True)
class Layers:
    """layer_types, or full_attn_idxs: which layers attend; the others have a convolution of conv_L_cache tokens."""

    names: tuple[str, ...] = ("layer_types", "full_attn_idxs", LENGTH, BIAS)

    @property
    def defaults(self) -> Mapping[str, Any]:
        return {LENGTH: 3, BIAS: False}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number, attending = theirs["num_hidden_layers"], theirs.get("full_attn_idxs")
        types = theirs.get("layer_types") or [
            FULL if attending is None or i in attending else "conv" for i in range(number)]
        if len(types) != number or set(types) - MIXERS.keys():
            raise ValueError(f"layer_types needs one of {', '.join(MIXERS)} for each of the {number} layers")
        own = {"short_conv.length": theirs[LENGTH], "short_conv.bias": theirs[BIAS]} if "conv" in types else {}
        return {"mixer": PerLayer(MIXERS[kind] for kind in types)} | own

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        words = {ours: theirs for theirs, ours in MIXERS.items()}
        return {"layer_types": [words[cfg.at(i).mixer] for i in range(cfg.num_layers)],
                LENGTH: cfg.short_conv.length, BIAS: cfg.short_conv.bias}


@dataclass(frozen=True)
class Width:
    """intermediate_size, of which two thirds, rounded up, are the width of the MLP if block_auto_adjust_ff_dim."""

    names: tuple[str, ...] = ("intermediate_size", ADJUST, MULTIPLE, FACTOR)

    @property
    def defaults(self) -> Mapping[str, Any]:
        return {"intermediate_size": 12288, ADJUST: True, MULTIPLE: 256, FACTOR: 1.0}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        width = theirs["intermediate_size"]
        if theirs[ADJUST]:
            factor, multiple = theirs[FACTOR], theirs[MULTIPLE]
            width = int(2 * width / 3) if factor is None else int(factor * int(2 * width / 3))
            width = -(-width // multiple) * multiple if factor is not None else width
        return {"hidden_dim": width}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"intermediate_size": cfg.hidden_width, ADJUST: False}


FAMILY = Family(
    model_type="lfm2", architecture="Lfm2ForCausalLM",
    fixed=FIXED,
    fields=(*(part for part in llama_sizes(vocab=65536, dim=2560, hidden_dim=None, kv=8, context=128_000)
              if part.name != "attention_dropout"),
            unusual_head_dim(), Field("norm_eps", "norm_eps", 1e-5), tied(True), Rope(theta=1_000_000.0), Layers(),
            Width()),
    # of older files: what the class does not read
    harmless=("block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu",
              "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init", "num_heads"),
    aliases={"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"},
    weights=WeightMap(
        "model.layers.",
        (Same("mixer.branch.out", "conv.out_proj", beside="mixer.branch.conv"),
         Taps("mixer.branch.conv", "conv.conv"),
         Fused(("mixer.branch.in_gate", "mixer.branch.out_gate", "mixer.branch.value"), "conv.in_proj"),
         *renamed({"mixer.branch.q": "self_attn.q_proj", "mixer.branch.k": "self_attn.k_proj",
                   "mixer.branch.v": "self_attn.v_proj", "mixer.branch.out": "self_attn.out_proj",
                   "mixer.branch.q_norm": "self_attn.q_layernorm", "mixer.branch.k_norm": "self_attn.k_layernorm",
                   "mlp.branch.gate": "feed_forward.w1", "mlp.branch.up": "feed_forward.w3",
                   "mlp.branch.out": "feed_forward.w2", "mixer.norm": "operator_norm", "mlp.norm": "ffn_norm"})),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.embedding_norm", HEAD: "lm_head"})),
    about={"lfm2": About("gated short convolutions, attention in six of sixteen layers", 2025, "arXiv:2511.23404")},
    presets={
        # the 1.2B model
        "lfm2": FIXED | {
            "short_conv.length": 3, "short_conv.bias": False, "dim": 2048, "num_layers": 16,
            "attention.num_heads": 32, "attention.num_kv_heads": 8, "attention.head_dim": 64, "hidden_dim": 8192,
            "vocab_size": 65536, "max_seq_len": 128_000, "rope.theta": 1_000_000.0, "tie_embeddings": True,
            "layers": ("short_conv", "short_conv", "attention", "short_conv", "short_conv", "attention", "short_conv",
                       "short_conv", "attention", "short_conv", "attention", "short_conv", "attention", "short_conv",
                       "attention", "short_conv")},
    },
)
