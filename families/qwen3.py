"""Qwen3, Yang et al. 2025, arXiv:2505.09388: Llama with normalised queries and keys."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope, Windows
from families.llama import EPS, SWIGLU
from families.weights import llama_weights

FAMILY = Family(
    model_type="qwen3", architecture="Qwen3ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=151936, hidden_dim=22016, kv=32, context=32768), head_dim(128),
            activation("hidden_act", "silu"), EPS, tied(False), Rope(), Windows(switched=True),
            Field("attention_bias", ATTENTION_BIASES, False)),
    weights=llama_weights(),
    about={"qwen3": About("Llama with QK-norm, heads twice as wide as the model", 2025, "arXiv:2505.09388")},
    presets={
        # the 0.6B model
        "qwen3": SWIGLU | {"dim": 1024, "num_layers": 28, "attention.num_heads": 16, "attention.num_kv_heads": 8,
                           "attention.head_dim": 128, "hidden_dim": 3072, "vocab_size": 151936, "max_seq_len": 40960,
                           "norm_eps": 1e-6, "rope.theta": 1_000_000.0, "tie_embeddings": True},
    },
)
