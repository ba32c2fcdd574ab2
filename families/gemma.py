"""Gemma, Gemma Team 2024, arXiv:2403.08295: GeGLU, a scale of 1 + w in norms, large heads."""

from families.family import About, Family
from families.fields import ACTIVATIONS, ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.gemma2 import GEMMA
from families.layers import Rope
from families.llama import EPS
from families.weights import llama_weights

FAMILY = Family(
    model_type="gemma", architecture="GemmaForCausalLM",
    fixed=GEMMA,
    fields=(*llama_sizes(vocab=256000, dim=3072, hidden_dim=24576, layers=28, heads=16, kv=16, context=8192),
            head_dim(256), EPS, tied(True), Rope(), Field("attention_bias", ATTENTION_BIASES, False),
            activation("hidden_act", "gelu_pytorch_tanh", words=ACTIVATIONS | {"gelu": "gelu_tanh"})),
    harmless=("hidden_activation",),
    weights=llama_weights(),
    about={"gemma": About("GeGLU eight times as wide, norms scale by 1 + w, wide heads", 2024, "arXiv:2403.08295")},
    presets={
        # the 2B model
        "gemma": {"dim": 2048, "num_layers": 18, "attention.num_heads": 8, "attention.num_kv_heads": 1,
                  "attention.head_dim": 256, "hidden_dim": 16384, "vocab_size": 256000, "max_seq_len": 8192,
                  "norm_eps": 1e-6, "tie_embeddings": True},
    },
)
