"""Qwen2, Yang et al. 2024, arXiv:2407.10671: Llama with biases of queries, keys and values."""

from families.family import About, Family
from families.fields import QKV_BIASES, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.llama import EPS, SWIGLU
from families.weights import llama_weights

FAMILY = Family(
    model_type="qwen2", architecture="Qwen2ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"} | dict.fromkeys(QKV_BIASES, True),
    fields=(*llama_sizes(vocab=151936, hidden_dim=22016, kv=32, context=32768), unusual_head_dim(),
            activation("hidden_act", "silu"), EPS, tied(False), Rope(), Windows(switched=True)),
    weights=llama_weights(),
    about={"qwen2": About("Llama with biases of queries, keys and values", 2024, "arXiv:2407.10671")},
    presets={
        # the 0.5B model
        "qwen2": SWIGLU | {"dim": 896, "num_layers": 24, "attention.num_heads": 14, "attention.num_kv_heads": 2,
                           "hidden_dim": 4864, "vocab_size": 151936, "max_seq_len": 131072, "norm_eps": 1e-6,
                           "rope.theta": 1_000_000.0, "tie_embeddings": True},
    },
)
