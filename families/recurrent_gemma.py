"""RecurrentGemma, Botev et al. 2024, arXiv:2404.07839: two layers of RG-LRU, then one of local attention (Griffin)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange

from config import ModelConfig
from families.family import About, Family
from families.fields import (
    QKV_BIASES,
    Field,
    Implied,
    OneField,
    PerLayer,
    Theirs,
    implied_head_dim,
    kv_heads,
    tied,
    vocabulary,
)
from families.layers import Rope
from families.llama import EPS
from families.weights import HEAD, LINEARS, Same, Taps, Transposing, WeightMap, renamed

MIXERS = {"recurrent": "rg_lru", "attention": "attention"}
FIXED = {"mlp": "glu", "activation": "gelu_tanh", "mlp_bias": True, "norm": "rms", "norm_unit_offset": True,
         "embed_scale": "sqrt_dim_bfloat16", "attention.out_bias": True, "rg_lru.num_heads": None}


class Blocks:
    """block_types: the mixer of each layer, tiled over the depth; and the window of those that attend."""

    names = ("block_types", "attention_window_size")
    defaults = {"block_types": ("recurrent", "recurrent", "attention"), "attention_window_size": 2048}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        types, number = theirs["block_types"], theirs["num_hidden_layers"]
        if unknown := [kind for kind in types if kind not in MIXERS]:
            raise ValueError(f"block_types has {unknown[0]!r}, which is not known here")
        mixers = [MIXERS[types[i % len(types)]] for i in range(number)]
        window = theirs["attention_window_size"] if "attention" in mixers else None
        return {"mixer": PerLayer(mixers), "attention.window": window}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        words = {ours: theirs for theirs, ours in MIXERS.items()}
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        window = next((layer.attention.window for layer in layers if layer.mixer == "attention"), 2048)
        return {"block_types": [words[layer.mixer] for layer in layers], "attention_window_size": window}


class Width(OneField):
    """The channels of the state; None = as many as the stream has."""

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"rg_lru.inner_dim": theirs.get(self.name) or theirs["hidden_size"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: cfg.rg_lru.inner_width(cfg)}


@dataclass(frozen=True)
class Gate(Transposing):
    """A matrix for each head is a parameter, with inputs in its rows, and its bias another, with an axis of heads."""

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [f"{prefix}{self.theirs}_{end}"]

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [theirs.mT if theirs.dim() == 3 else theirs.flatten()]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        heads = cfg.rg_lru.heads(cfg)
        return ours[0].mT if ours[0].dim() == 3 else rearrange(ours[0], "(h p) -> h p", h=heads)


def weights() -> WeightMap:
    own, room = "mixer.branch", "temporal_block"
    recurrent = (Same(f"{own}.out", f"{room}.linear_out", beside=f"{own}.conv"), Taps(f"{own}.conv", f"{room}.conv_1d"),
                 Gate(f"{own}.input_gate", f"{room}.rg_lru.input_gate"), Same(own, f"{room}.rg_lru"),
                 Gate(f"{own}.decay_gate", f"{room}.rg_lru.recurrent_gate"),
                 *renamed({f"{own}.value": f"{room}.linear_x", f"{own}.gate": f"{room}.linear_y"}))
    rest = {ours: theirs.replace("self_attn", room).replace("mlp.", "mlp_block.") for ours, theirs in LINEARS.items()}
    norms = {"mixer.norm": "temporal_pre_norm", "mlp.norm": "channel_pre_norm"}
    return WeightMap("model.layers.", (*recurrent, *renamed(rest | norms)), renamed({
        "embed.tokens": "model.embed_tokens", "norm": "model.final_norm", HEAD: "lm_head"}))


FAMILY = Family(
    model_type="recurrent_gemma", architecture="RecurrentGemmaForCausalLM",
    fixed=FIXED,
    fields=(vocabulary(256000), Field("hidden_size", "dim", 2560), Field("num_hidden_layers", "num_layers", 26),
            Field("max_position_embeddings", "max_seq_len", 8192),  # which their class does not know, and keeps
            Field("intermediate_size", "hidden_dim", 7680, lambda width: width // 2, lambda cfg: 2 * cfg.hidden_width),
            Field("num_attention_heads", "attention.num_heads", 10), kv_heads(), implied_head_dim(),
            Field("attention_dropout", "attention.dropout", 0.0), Field("attention_bias", QKV_BIASES, False),
            Width("lru_width"),
            Field("conv1d_width", "rg_lru.conv_len", 4), Field("logits_soft_cap", "logit_softcap", 30.0), EPS,
            tied(True), Rope(fraction=0.5), Blocks(),
            Implied("final_w_init_variance_scale", lambda theirs: 2 / theirs["num_hidden_layers"],
                    lambda cfg: 2 / cfg.num_layers)),
    only={"hidden_activation": "gelu_pytorch_tanh"},
    harmless=("w_init_variance_scale",),
    weights=weights(),
    about={"recurrentgemma": About("two layers with a gated diagonal state for one of local attention (Griffin)", 2024,
                                   "arXiv:2404.07839")},
    presets={
        # the 2B model
        "recurrentgemma": FIXED | {
            "dim": 2560, "num_layers": 26, "attention.num_heads": 10, "attention.num_kv_heads": 1, "hidden_dim": 7680,
            "vocab_size": 256000, "max_seq_len": 8192, "norm_eps": 1e-6, "rope.fraction": 0.5, "logit_softcap": 30.0,
            "tie_embeddings": True, "attention.window": 2048, "layers": ("rg_lru", "rg_lru", "attention"),
            "rg_lru.inner_dim": 2560, "rg_lru.conv_len": 4},
    },
)
