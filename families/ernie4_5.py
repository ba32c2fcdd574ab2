"""ERNIE 4.5, Baidu 2025: Llama with heads rotated in pairs, and biases in all of its projections or in none."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="ernie4_5", architecture="Ernie4_5ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=103424, dim=1024, hidden_dim=3072, layers=18, heads=16, kv=2, context=131072),
            head_dim(128), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(True),
            Rope(theta=500_000.0), Field("use_bias", (*ATTENTION_BIASES, "mlp_bias"), False)),
    weights=llama_weights(),
)
