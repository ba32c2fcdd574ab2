"""Helium 1, Kyutai 2025: Llama with heads rotated in pairs."""

from families.family import Family
from families.fields import QKV_BIASES, Field, activation, implied_head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="helium", architecture="HeliumForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=48000, dim=2560, hidden_dim=7040, layers=24, heads=20, kv=20, context=4096),
            implied_head_dim(), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-8), tied(False),
            Rope(theta=100_000.0), Field("attention_bias", QKV_BIASES, False), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
)
