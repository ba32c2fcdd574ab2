"""Qwen3 with experts, Yang et al. 2025, arXiv:2505.09388: 128 narrow ones, of which each token goes through eight."""

from families.experts import TRAINING, BalanceLoss, SparseLayers, expert_weights, experts, renormalised
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import OneWindow, Rope
from families.llama import EPS

FAMILY = Family(
    model_type="qwen3_moe", architecture="Qwen3MoeForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=151936, dim=2048, hidden_dim=None, layers=24, heads=32, kv=4, context=32768),
            unusual_head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(), OneWindow(),
            Field("attention_bias", ATTENTION_BIASES, False), SparseLayers(6144, 768), *experts("num_experts", 128, 8),
            renormalised(False), BalanceLoss(0.001)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(),
    about={"qwen3-moe": About("Qwen3 with 128 narrow experts, eight for each token", 2025, "arXiv:2505.09388")},
    presets={
        # the 30B model with 3B active
        "qwen3-moe": {"mlp": "moe", "activation": "silu", "norm": "rms", "dim": 2048, "num_layers": 48,
                      "attention.num_heads": 32, "attention.num_kv_heads": 4, "attention.head_dim": 128,
                      "hidden_dim": 768, "vocab_size": 151936, "max_seq_len": 40960, "norm_eps": 1e-6,
                      "rope.theta": 1_000_000.0, "moe.num_experts": 128, "moe.top_k": 8, "moe.balance_loss": 0.008},
    },
)
