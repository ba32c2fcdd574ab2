"""Solar Open, Upstage 2026: Llama with DeepSeek-V3's experts in every layer."""

from families.experts import TRAINING, SharedExperts, experts, renormalised, routed
from families.family import Family
from families.fields import QKV_BIASES, Field, activation, head_dim, hidden, llama_sizes, tied
from families.glm4_moe import EPS, ROUTED, WEIGHTS
from families.layers import Rope

FAMILY = Family(
    model_type="solar_open", architecture="SolarOpenForCausalLM",
    fixed=ROUTED | {"mlp": "moe"},
    fields=(*llama_sizes(vocab=196608, hidden_dim=None, layers=48, heads=64, kv=8, context=131072),
            hidden("moe_intermediate_size", 1280), head_dim(128), activation("hidden_act", "silu"), EPS, tied(False),
            Rope(theta=1_000_000.0), Field("attention_bias", QKV_BIASES, False),
            *experts("n_routed_experts", 128, 8), SharedExperts(1), *routed(1, 1, 1.0), renormalised(True)),
    harmless=TRAINING,
    aliases={"num_local_experts": "n_routed_experts"},
    weights=WEIGHTS,
)
