"""BitNet b1.58, Ma et al. 2025, arXiv:2504.12285, not quantised: gated relu^2, and a norm within each branch."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, implied_head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import PRE, llama_weights

FAMILY = Family(
    model_type="bitnet", architecture="BitNetForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "inner_norm": True},
    fields=(*llama_sizes(vocab=128256, dim=2560, hidden_dim=6912, layers=30, heads=20, kv=5), implied_head_dim(),
            activation("hidden_act", "relu2"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=500_000.0), Field("attention_bias", ATTENTION_BIASES, False)),
    weights=llama_weights(PRE | {"mixer.branch.inner_norm": "self_attn.attn_sub_norm",
                                 "mlp.branch.inner_norm": "mlp.ffn_sub_norm"}),
)
