"""InternLM 3, Shanghai AI Laboratory 2025: Llama's class, with biases in all of its projections or in none."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, Implied, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="internlm3", architecture="LlamaForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=128512, hidden_dim=10240, layers=48, kv=2, context=32768), head_dim(128),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Field("attention_bias", (*ATTENTION_BIASES, "mlp_bias"), False),
            Implied("mlp_bias", lambda theirs: theirs["attention_bias"], lambda cfg: cfg.mlp_bias)),
    aliases={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
    weights=llama_weights(),
)
