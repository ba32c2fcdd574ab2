"""Hy3, Tencent 2026: Qwen3's attention, and sigmoid experts that a bias balances."""

from families.experts import TRAINING, ListedLayers, SharedExperts, expert_weights, experts, shared_expert
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import Bare, Same

FAMILY = Family(
    model_type="hy_v3", architecture="HYV3ForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head", "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=120832, hidden_dim=None, layers=80, heads=64, kv=8, context=131072), head_dim(128),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=11_158_840.0), Field("attention_bias", ATTENTION_BIASES, False), ListedLayers(13312, 1536),
            *experts("num_experts", 192, 8), SharedExperts(1, "num_shared_experts"),
            Field("router_scaling_factor", "moe.scale", 2.826)),
    harmless=(*TRAINING, "enable_moe_fp32_combine"),
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(Same("mlp.branch.router.logits", "mlp.router.gate"),
                           Bare("mlp.branch.router", "mlp.expert_bias"), *shared_expert("mlp.shared_mlp")),
)
