"""Seed-OSS, ByteDance Seed 2025: Llama with biases of queries, keys and values, and heads wider than the stream."""

from families.family import Family
from families.fields import QKV_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.llama import EPS
from families.weights import llama_weights

FAMILY = Family(
    model_type="seed_oss", architecture="SeedOssForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=155136, hidden_dim=27648, layers=64, heads=80, kv=8, context=524288, dropout=0.1),
            head_dim(128), activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            Field("attention_bias", QKV_BIASES, True), Field("attention_out_bias", "attention.out_bias", False),
            Field("mlp_bias", "mlp_bias", False), Field("residual_dropout", "residual_dropout", 0.1)),
    weights=llama_weights(),
)
