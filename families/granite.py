"""Granite 3, IBM 2024: Llama with factors on embedding, scores, branches and logits, after arXiv:2203.03466."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, scale_of, tied, unusual_head_dim
from families.layers import Rope
from families.llama import EPS, SWIGLU
from families.weights import llama_weights

FACTORS = (
    Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False),
    Field("attention_multiplier", "attention.scale", 1.0, from_config=scale_of),
    Field("embedding_multiplier", "embed_scale", 1.0), Field("residual_multiplier", "residual_scale", 1.0),
    Field("logits_scaling", "logit_scale", 1.0, lambda number: 1 / number, lambda cfg: 1 / cfg.logit_scale),
)

FAMILY = Family(
    model_type="granite", architecture="GraniteForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(), unusual_head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(), *FACTORS),
    weights=llama_weights(),
    about={"granite": About("Llama with factors on embedding, scores, branches and logits", 2024, "IBM's report")},
    presets={
        # the 2B model of version 3.0
        "granite": SWIGLU | {"dim": 2048, "num_layers": 40, "attention.num_heads": 32, "attention.num_kv_heads": 8,
                             "hidden_dim": 8192, "vocab_size": 49155, "max_seq_len": 4096, "tie_embeddings": True,
                             "attention.scale": 0.015625, "embed_scale": 12.0, "residual_scale": 0.22,
                             "logit_scale": 0.125},
    },
)
