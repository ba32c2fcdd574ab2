"""OLMoE, Muennighoff et al. 2024, arXiv:2409.02060: 64 experts, and no sum of their scores; full QK-norm."""

from families.experts import TRAINING, BalanceLoss, expert_weights, experts, renormalised
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied
from families.layers import Rope
from families.weights import PRE

FULL_QK_NORMS = {"mixer.branch.q_full_norm": "self_attn.q_norm", "mixer.branch.k_full_norm": "self_attn.k_norm"}

FAMILY = Family(
    model_type="olmoe", architecture="OlmoeForCausalLM",
    fixed={"mlp": "moe", "norm": "rms", "qk_norm": "full"},
    fields=(*llama_sizes(vocab=50304, dim=2048, hidden_dim=2048, layers=16, heads=16, context=4096),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False), Field("clip_qkv", "attention.clip", None),
            *experts("num_experts", 64, 8), renormalised(False), BalanceLoss(0.01)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(norms=PRE | FULL_QK_NORMS),
    about={"olmoe": About("64 experts, eight for each token, whose scores need no sum of 1", 2024, "arXiv:2409.02060")},
    presets={
        # the 7B model with 1B active
        "olmoe": {"mlp": "moe", "activation": "silu", "norm": "rms", "qk_norm": "full", "dim": 2048, "num_layers": 16,
                  "attention.num_heads": 16, "hidden_dim": 1024, "vocab_size": 50304, "max_seq_len": 4096,
                  "moe.num_experts": 64, "moe.top_k": 8, "moe.renormalise": False, "moe.balance_loss": 0.08,
                  "moe.router_z_loss": 0.001},
    },
)
