"""Phi-3.5-MoE, Abdin et al. 2024, arXiv:2404.14219: 16 experts that a SparseMixer chooses, LayerNorm with biases."""

from families.experts import TRAINING, BalanceLoss, expert_weights, experts
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope

FAMILY = Family(
    model_type="phimoe", architecture="PhimoeForCausalLM",
    fixed={"mlp": "moe", "norm_bias": True, "moe.scores": "sparsemixer", "moe.renormalise": False},
    fields=(*llama_sizes(vocab=32064, hidden_dim=6400, kv=8, context=131072), unusual_head_dim(),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=1_000_000.0, types=()), Field("sliding_window", "attention.window", None),
            Field("attention_bias", ATTENTION_BIASES, False), Field("lm_head_bias", "head_bias", False),
            *experts("num_local_experts", 16, 2), BalanceLoss(0.001),
            Field("router_jitter_noise", "moe.margin", 0.01, lambda noise: 2 * noise, lambda cfg: cfg.moe.margin / 2)),
    only={"num_experts_per_tok": 2},  # whatever their field says
    harmless=(*TRAINING, "input_jitter_noise", "original_max_position_embeddings"),  # of training, and of longrope
    aliases={"num_experts": "num_local_experts"},
    weights=expert_weights(room="block_sparse_moe", names={"gate": "w1", "up": "w3", "out": "w2"}),
)
