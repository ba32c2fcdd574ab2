"""IQuest Coder, IQuest 2026: Llama's class at other sizes."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="iquestcoder", architecture="LlamaForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=76800, dim=5120, hidden_dim=27648, layers=80, heads=40, kv=8, context=131072),
            head_dim(128), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(), Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
)
