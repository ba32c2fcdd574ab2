"""Jais 2, Inception and MBZUAI 2025: LayerNorm, relu^2, biases everywhere."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="jais2", architecture="Jais2ForCausalLM",
    fixed={"norm_bias": True},
    fields=(*llama_sizes(vocab=150272, dim=3328, hidden_dim=26624, heads=26, context=8192), head_dim(),
            activation("hidden_act", "relu2"), Field("layer_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, True), Field("mlp_bias", "mlp_bias", True)),
    weights=llama_weights(),
)
