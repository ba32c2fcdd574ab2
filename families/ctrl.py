"""CTRL, Keskar et al. 2019, arXiv:1909.05858: scaled embeddings plus sines and cosines, relu, a bias of the logits."""

from families.family import EVERY_BIAS, Family
from families.fields import Field, hidden, tied, vocabulary
from families.weights import HEAD, WeightMap, renamed

FAMILY = Family(
    model_type="ctrl", architecture="CTRLLMHeadModel",
    fixed=EVERY_BIAS | {"position": "sinusoidal", "sinusoidal.layout": "half", "embed_scale": "sqrt_dim",
                        "head_bias": True, "activation": "relu", "norm_eps": 1e-6},
    fields=(
        vocabulary(246534), Field("n_embd", "dim", 1280), Field("n_layer", "num_layers", 48), hidden("dff", 8192),
        Field("n_positions", "max_seq_len", 256), Field("n_head", "attention.num_heads", 16),
        Field("resid_pdrop", "residual_dropout", 0.1), Field("embd_pdrop", "embed_dropout", 0.1), tied(True),
    ),
    only={"layer_norm_epsilon": 1e-6},  # which the norms of layers have in any case
    weights=WeightMap(
        "transformer.h.",
        renamed({f"mixer.branch.{name}": f"multi_head_attention.W{name}" for name in "qkv"} | {
            "mixer.branch.out": "multi_head_attention.dense", "mlp.branch.up": "ffn.0", "mlp.branch.out": "ffn.2",
            "mixer.norm": "layernorm1", "mlp.norm": "layernorm2"}),
        renamed({"embed.tokens": "transformer.w", "norm": "transformer.layernorm", HEAD: "lm_head"}),
        prefix="transformer."),
)
