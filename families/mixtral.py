"""Mixtral, Jiang et al. 2024, arXiv:2401.04088: Mistral with eight experts, of which each token goes through two."""

from families.experts import TRAINING, BalanceLoss, expert_weights, experts
from families.family import About, Family
from families.fields import Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope

FAMILY = Family(
    model_type="mixtral", architecture="MixtralForCausalLM",
    fixed={"mlp": "moe", "norm": "rms"},
    fields=(*llama_sizes(hidden_dim=14336, kv=8, context=131072), head_dim(), activation("hidden_act", "silu"),
            Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(theta=1_000_000.0),
            Field("sliding_window", "attention.window", None), *experts("num_local_experts", 8, 2),
            BalanceLoss(0.001)),
    harmless=TRAINING,
    aliases={"num_experts": "num_local_experts"},
    weights=expert_weights(room="block_sparse_moe", names={"gate": "w1", "up": "w3", "out": "w2"}),
    about={"mixtral": About("Mistral with eight experts, two for each token", 2024, "arXiv:2401.04088")},
    presets={
        # the 8x7B model
        "mixtral": {"mlp": "moe", "activation": "silu", "norm": "rms", "dim": 4096, "num_layers": 32,
                    "attention.num_heads": 32, "attention.num_kv_heads": 8, "hidden_dim": 14336, "vocab_size": 32000,
                    "max_seq_len": 32768, "rope.theta": 1_000_000.0, "moe.balance_loss": 0.002},
    },
)
