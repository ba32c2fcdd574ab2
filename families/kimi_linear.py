"""Kimi Linear, Kimi Team 2025, arXiv:2510.26692: three layers of KDA for one of latent attention without positions."""

from dataclasses import dataclass, replace
from typing import Any

from config import ModelConfig
from families.deepseek_v3 import latent_sizes, latent_weights
from families.experts import TRAINING, ListedLayers, SharedExperts, experts, renormalised, routed
from families.family import About, Family
from families.fields import Field, Theirs, llama_sizes
from families.hybrid import MixerTypes, TapsOfParts, Unsqueezed, layer_with, mixer_names
from families.weights import Same

FIXED = {"norm": "rms", "activation": "silu", "position": "none", "moe.scores": "sigmoid", "moe.balance_bias": True,
         "kda.gate_bias": False, "kda.decay_bound": None, "kda.neg_eigenvalues": False}
ROOM = "block_sparse_moe"
NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj", "norm": "o_norm", "strength.beta": "b_proj",
         "decay.steps.down": "f_a_proj", "decay.steps.up": "f_b_proj", "gate.down": "g_a_proj",
         "gate.up": "g_b_proj"}


def full_layer(theirs: Theirs, layer: int) -> bool:
    """Whether linear_attn_config counts a layer, from 1, among full ones; without it every fourth is, but the first."""
    listed = (theirs.get("linear_attn_config") or {}).get("full_attn_layers")
    return layer > 0 and layer % 4 == 0 if listed is None else layer + 1 in listed


@dataclass(frozen=True)
class KdaSizes:
    """The heads of KDA: keys, values and what lies between two matrices are equally wide."""

    # field -> (its name in linear_attn_config, its default)
    FIELDS = {"linear_num_heads": ("num_heads", 32), "linear_head_dim": ("head_dim", 128),
              "linear_conv_kernel_dim": ("short_conv_kernel_size", 4)}
    names = (*FIELDS, "linear_attn_config")
    defaults = {name: value for name, (_, value) in FIELDS.items()}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        listed = theirs.get("linear_attn_config") or {}
        heads, width, conv_len = (listed.get(other, theirs[name]) for name, (other, _) in self.FIELDS.items())
        return {"kda.num_heads": heads, "kda.conv_len": conv_len,
                **dict.fromkeys(("kda.key_dim", "kda.value_dim", "kda.rank"), width)}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = layer_with(cfg, "kda").kda
        if own.conv_len is None:
            raise ValueError("model.kda.conv_len=None, and this family has a convolution")
        return {"linear_num_heads": own.num_heads, "linear_head_dim": own.key_width(cfg.dim),
                "linear_conv_kernel_dim": own.conv_len}


FAMILY = Family(
    model_type="kimi_linear", architecture="KimiLinearForCausalLM", fixed=FIXED,
    fields=(*llama_sizes(vocab=163840, dim=2304, hidden_dim=None, layers=27, heads=32, context=1048576, grouped=False),
            *latent_sizes(q_rank=None), Field("rms_norm_eps", ("norm_eps", "kda.norm_eps"), 1e-5),
            ListedLayers(9216, 1024, first_name="first_k_dense_replace"), *experts("num_local_experts", 256, 8),
            SharedExperts(1), *routed(1, 1, 2.446), renormalised(True),
            MixerTypes({"mixer": "kda"}, {"mixer": "latent"}, full_layer), KdaSizes()),
    only={"hidden_act": "silu", "moe_router_activation_func": "sigmoid", "mla_use_nope": True, "moe_layer_freq": 1},
    harmless=(*TRAINING, "head_dim", "rope_theta", "num_nextn_predict_layers", "use_grouped_topk"),
    aliases={"model_max_length": "max_position_embeddings", "moe_renormalize": "norm_topk_prob",
             "num_expert_group": "n_group", "num_experts": "num_local_experts",
             "num_experts_per_token": "num_experts_per_tok", "num_shared_experts": "n_shared_experts"},
    weights=replace(latent_weights(
        *mixer_names("self_attn", NAMES, TapsOfParts("mixer.branch.conv", "self_attn.{}_conv1d", "kda"),
                     Unsqueezed("mixer.branch.decay", "self_attn", end="A_log")),
        *(Same(f"mlp.branch.{ours}", f"{ROOM}.{theirs}") for ours, theirs in (
            ("gate", "gate_proj"), ("up", "up_proj"), ("out", "down_proj"))),
        room=ROOM, names={"gate": "w1", "up": "w3", "out": "w2"}), aliases=((".mlp.", f".{ROOM}."),)),
    about={"kimi-linear": About("three layers of Kimi Delta Attention for one of latent attention, 256 experts", 2025,
                                "arXiv:2510.26692")},
    presets={
        # the 48B model with 3B active
        "kimi-linear": FIXED | {
            "mixer": "kda", "mlp": "moe", "dim": 2304, "num_layers": 27, "norm_eps": 1e-5, "hidden_dim": 1024,
            "attention.num_heads": 32, "latent.kv_rank": 512, "latent.nope_dim": 128, "latent.rope_dim": 64,
            "latent.v_dim": 128, "vocab_size": 163840, "max_seq_len": 1048576, "moe.num_experts": 256, "moe.top_k": 8,
            "moe.scale": 2.446, "moe.shared_dim": 1024, "kda.num_heads": 32, "kda.key_dim": 128, "kda.value_dim": 128,
            "kda.rank": 128, "kda.conv_len": 4, "kda.norm_eps": 1e-5,
            "layers": ("dense", "base", "base", "latent") + (*("base",) * 3, "latent") * 5 + ("base", "base", "latent"),
            "kinds": {"dense": {"mlp": "glu", "hidden_dim": 9216}, "latent": {"mixer": "latent"}}},
    },
)
