"""GLM-4.5, GLM Team 2025, arXiv:2508.06471: DeepSeek-V3's experts; half of each head is rotated."""

from families.experts import (
    TRAINING,
    FirstDense,
    SharedExperts,
    expert_weights,
    experts,
    renormalised,
    routed,
    shared_expert,
)
from families.family import Family
from families.fields import QKV_BIASES, Field, activation, llama_sizes, switch, tied, unusual_head_dim
from families.layers import Rope

ROUTED = {"norm": "rms", "moe.scores": "sigmoid", "moe.balance_bias": True}
EPS = Field("rms_norm_eps", "norm_eps", 1e-5)
WEIGHTS = expert_weights(*shared_expert("mlp.shared_experts"))
MORE_TOKENS = ("num_nextn_predict_layers", "num_mtp_layers")  # of parts that are no part of the model

FAMILY = Family(
    model_type="glm4_moe", architecture="Glm4MoeForCausalLM",
    fixed=ROUTED,
    fields=(*llama_sizes(vocab=151552, hidden_dim=None, layers=46, heads=96, kv=8, context=131072),
            unusual_head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(fraction=0.5),
            Field("attention_bias", QKV_BIASES, False), switch("use_qk_norm", "qk_norm", False, on="head", off="none"),
            FirstDense(10944, 1408, first=1), *experts("n_routed_experts", 128, 8), SharedExperts(1),
            *routed(1, 1, 1.0), renormalised(True)),
    harmless=(*TRAINING, *MORE_TOKENS),
    aliases={"num_local_experts": "n_routed_experts"},
    weights=WEIGHTS,
)
