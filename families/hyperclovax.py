"""HyperCLOVA X, NAVER 2025, arXiv:2506.22403: Granite's factors, and norms on both sides of a branch or before it."""

from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, scale_of, switch, tied
from families.layers import Rope
from families.llama import EPS
from families.weights import PRE, llama_weights

FAMILY = Family(
    model_type="hyperclovax", architecture="HyperCLOVAXForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(), head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False),
            Field("attention_multiplier", "attention.scale", None, from_config=scale_of),
            Field("embedding_multiplier", "embed_scale", 1.0), Field("residual_multiplier", "residual_scale", 1.0),
            Field("logits_scaling", "logit_scale", 1.0),
            switch("use_post_norm", "residual", True, on="sandwich", off="pre")),
    weights=llama_weights(PRE | {"mixer.post_norm": "post_norm1", "mlp.post_norm": "post_norm2"}),
)
