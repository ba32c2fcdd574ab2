"""Phi-3, Abdin et al. 2024, arXiv:2404.14219: Llama with a window, its projections stored together."""

from families.family import Family
from families.fields import Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import PRE, QKV, Fused, llama_weights

GATE_UP = Fused(("mlp.branch.gate", "mlp.branch.up"), "mlp.gate_up_proj")

FAMILY = Family(
    model_type="phi3", architecture="Phi3ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=32064, dim=3072, hidden_dim=8192, context=4096), unusual_head_dim(),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(fraction=1.0, types=()),  # what its config.json calls su or yarn is longrope
            Field("sliding_window", "attention.window", None), Field("resid_pdrop", "residual_dropout", 0.0)),
    harmless=("original_max_position_embeddings", "embd_pdrop"),  # of longrope; of no part
    weights=llama_weights(PRE, Fused(QKV, "self_attn.qkv_proj"), GATE_UP),
)
