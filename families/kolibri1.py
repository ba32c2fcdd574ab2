"""Kolibri, Aleph Alpha 2026: norms on both sides of a branch, windows with positions, a bias of the experts' logits."""

from families.experts import TRAINING, expert_weights, experts, renormalised, shared_expert, shared_width
from families.family import Family
from families.fields import activation, head_dim, hidden, llama_sizes, tied
from families.layers import Rope, Windows
from families.llama import EPS
from families.weights import Bare

FAMILY = Family(
    model_type="kolibri1", architecture="Kolibri1ForCausalLM",
    fixed={"mlp": "moe", "norm": "rms", "residual": "sandwich", "qk_norm": "head", "moe.scores": "sigmoid",
           "moe.balance_bias": True, "moe.balance_logits": True},
    fields=(*llama_sizes(vocab=128000, dim=2560, hidden_dim=None, layers=50, heads=48, kv=4, context=262144),
            hidden("moe_intermediate_size", 512), head_dim(128), activation("hidden_act", "silu"), EPS, tied(False),
            Rope(), Windows(513, pattern="ssssf", nope=True), *experts("num_experts", 384, 6),
            shared_width("shared_expert_intermediate_size", 512), renormalised(False)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(
        Bare("mlp.branch.router", "moe.router.expert_bias"), *shared_expert("mlp.shared_experts"),
        norms={"mixer.norm": "input_layernorm", "mixer.post_norm": "post_attn_norm",
               "mlp.norm": "post_attention_layernorm", "mlp.post_norm": "post_ffn_norm"}),
)
