"""Apertus, 2025, arXiv:2509.14233, as far as flags express it: with another activation than xIELU.

With relu2 it is the form in which models with the defaults of config.py are exported.
"""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="apertus", architecture="ApertusForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=131072, hidden_dim=14336, context=65536), unusual_head_dim(),
            activation("hidden_act", "xielu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=12_000_000.0), Field("attention_bias", ATTENTION_BIASES, False)),
    weights=llama_weights({"mixer.norm": "attention_layernorm", "mlp.norm": "feedforward_layernorm"}),
)
