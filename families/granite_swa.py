"""Granite with windows, IBM 2026: a sink for each head, and a theta for each layer, 0 for one without positions."""

from families.family import Family
from families.fields import Field, activation, llama_sizes, tied, unusual_head_dim
from families.granite import FACTORS
from families.layers import EachLayer, Rope, Windows
from families.weights import PRE, llama_weights

THETAS = EachLayer(
    "layer_rope_theta",
    lambda theta: {"position": "rope", "rope.theta": theta} if theta else {"position": "none", "rope.theta": 10_000.0},
    lambda layer: layer.rope.theta if layer.position == "rope" else 0)

FAMILY = Family(
    model_type="granite_swa", architecture="GraniteSWAForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "attention.sinks": True},
    fields=(*llama_sizes(vocab=100352, dim=2560, hidden_dim=8192, layers=24, heads=20, kv=4, context=8192),
            unusual_head_dim(), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(True),
            Rope(), THETAS, Windows(128, pattern="fsss"), *FACTORS),
    weights=llama_weights(PRE | {"mixer.branch.attend": "self_attn"}),
)
