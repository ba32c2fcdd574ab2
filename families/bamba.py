"""Bamba, IBM, Princeton, CMU & UIUC 2024: Mamba-2, attention in three of its layers, and a SwiGLU in each."""

from dataclasses import replace
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, OneField, Theirs, llama_sizes, tied
from families.jamba import FEED_FORWARD, NORMS, WHOLE
from families.layers import Rope
from families.ssm import (
    COMPUTING,
    ListedMixers,
    StepLimits,
    attention_out,
    group_fields,
    mamba2_rules,
    mamba2_width,
    times_wide,
)
from families.weights import llama_weights

NAMES = {"num_heads": "mamba_n_heads", "state_dim": "mamba_d_state", "num_groups": "mamba_n_groups",
         "conv_len": "mamba_d_conv", "bias": "mamba_proj_bias", "conv_bias": "mamba_conv_bias"}
DEFAULTS = {"num_heads": 128, "state_dim": 256, "num_groups": 1, "conv_len": 4, "bias": False, "conv_bias": True}
FIXED = {"mlp": "glu", "norm": "rms", "activation": "silu"}


class HeadWidth(OneField):
    """mamba_d_head; auto is the width of the mixer, mamba_expand times that of the model, for each of its heads."""

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given = theirs.get(self.name, "auto")
        whole = theirs.get("mamba_expand", 2) * theirs["hidden_size"]
        return {"mamba2.head_dim": whole // theirs["mamba_n_heads"] if given == "auto" else given}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: cfg.mamba2.head_width(cfg.dim)}


def width(theirs: Theirs) -> int:
    head = HeadWidth("mamba_d_head").read(theirs)["mamba2.head_dim"]
    return theirs["mamba_n_heads"] * head


FAMILY = Family(
    model_type="bamba", architecture="BambaForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(vocab=128000, hidden_dim=14336, kv=8, context=262144),
            ListedMixers("attn_layer_indices", "mamba2"), *group_fields("mamba2", NAMES, DEFAULTS),
            HeadWidth("mamba_d_head"), StepLimits(), times_wide("mamba_expand", width, mamba2_width),
            Field("rms_norm_eps", ("norm_eps", "mamba2.norm_eps"), 1e-5), tied(False), Rope(fraction=0.5),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False),
            Field("z_loss_coefficient", "z_loss", 0.0)),
    only={"hidden_act": "silu"},
    harmless=(*COMPUTING, "num_logits_to_keep", "attn_rotary_emb"),
    weights=replace(llama_weights(NORMS, *mamba2_rules("mamba"), attention_out(), *FEED_FORWARD), whole=WHOLE),
    about={"bamba": About("Mamba-2, attention in three of 32 layers, SwiGLU", 2024, "IBM's model card")},
    presets={
        # the 9B model
        "bamba": FIXED | {
            "dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8, "hidden_dim": 14336,
            "vocab_size": 128256, "max_seq_len": 262144, "rope.fraction": 0.5, "norm_eps": 1e-5,
            "mamba2.num_heads": 128, "mamba2.head_dim": 64, "mamba2.state_dim": 128, "mamba2.num_groups": 1,
            "mamba2.conv_len": 4, "mamba2.conv_bias": True, "mamba2.bias": False, "mamba2.norm": "after_gate",
            "mamba2.norm_eps": 1e-5, "mamba2.min_step": 0.0, "mamba2.max_step": None,
            "layers": ("mamba2",) * 9 + (("attention",) + ("mamba2",) * 8) * 2 + ("attention",) + ("mamba2",) * 4},
    },
)
