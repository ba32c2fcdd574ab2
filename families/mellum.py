"""Mellum 2, JetBrains 2026: Qwen3 with experts, and windows with a theta of their own."""

from families.experts import TRAINING, BalanceLoss, ListedLayers, expert_weights, experts, renormalised
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import RopeByType, Windows
from families.llama import EPS

FAMILY = Family(
    model_type="mellum", architecture="MellumForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=98304, dim=2304, hidden_dim=None, layers=28, kv=4, context=131072), head_dim(128),
            activation("hidden_act", "silu"), EPS, tied(False),
            RopeByType(theta=500_000.0, windows=Windows(1024)), Field("attention_bias", ATTENTION_BIASES, False),
            ListedLayers(7168, 896, first=0), *experts("num_experts", 64, 8), renormalised(True), BalanceLoss(0.001)),
    harmless=(*TRAINING, "num_mtp_layers", "mtp_layer_types", "mtp_mlp_layer_types"),
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(),
)
