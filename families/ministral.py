"""Ministral, Mistral AI 2024: Llama with a window in all layers, or in some."""

from families.family import Family
from families.fields import activation, head_dim, llama_sizes, tied
from families.layers import Rope, Windows
from families.llama import EPS
from families.weights import llama_weights

FAMILY = Family(
    model_type="ministral", architecture="MinistralForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(hidden_dim=14336, kv=8, context=131072), head_dim(), activation("hidden_act", "silu"), EPS,
            tied(False), Rope(), Windows(4096, pattern="s")),
    weights=llama_weights(),
)
