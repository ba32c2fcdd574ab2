"""Recipes for the characters of a small text, at nanoGPT's CPU size: how few tokens reach the loss of nanoGPT's.

`python experiments/benchmark.py tokens-to-loss --data FILE --presets char-soon char nanogpt-char` compares them. On
tinyshakespeare nanoGPT's recipe comes to a loss of 1.88 in 1,536,000 tokens, the others in those of their steps.
"""

from typing import Any

from configuration.plain import PLAIN_MODEL
from families.family import ADAMW, About

SIZE: dict[str, Any] = PLAIN_MODEL | {
    "dim": 128, "num_layers": 4, "attention.num_heads": 4, "vocab_size": None, "max_seq_len": 64}
CHAR: dict[str, dict[str, Any]] = {
    "model": SIZE | {"activation": "relu2", "norm": "rms", "norm_eps": 1e-6, "qk_norm": "head", "out_init": "zero"},
    "tokenizer": {"kind": "char", "vocab_size": None},
    "train": ADAMW | {"optimizer": "muon", "lr": 5e-3, "momentum": 0.95, "schedule": "wsd", "decay_fraction": 0.8,
                      "min_lr_ratio": 0.0, "warmup_steps": None, "batch_size": 4, "accumulation": 1, "steps": 975,
                      "precision": "float32"},
}
# a short run: quick averages in the optimizer, high rates of embedding and vectors, no weight decay
SOON: dict[str, dict[str, Any]] = CHAR | {
    "model": CHAR["model"] | {"canon": ("mixer", "mlp"), "mlp": "glu", "activation": "silu"},
    "train": CHAR["train"] | {"momentum": 0.9, "beta1": 0.8, "beta2": 0.98, "embed_lr_mult": 4.0, "vector_lr_mult": 3.0,
                              "weight_decay": 0.0, "decay_fraction": 1.0, "steps": 320},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "char": CHAR,  # newer methods: 249,600 tokens
    "char-soon": SOON,  # 81,920 tokens
    # Karpathy 2022, nanoGPT's recipe for a laptop's CPU: the baseline
    "nanogpt-char": {
        "model": SIZE | {"activation": "gelu", "position": "learned", "tie_embeddings": True, "out_init": "depth"},
        "tokenizer": {"kind": "char", "vocab_size": None},
        "train": ADAMW | {"lr": 1e-3, "beta2": 0.99, "batch_size": 12, "accumulation": 1, "steps": 2000,
                          "warmup_steps": 100, "precision": "float32"},
    },
}
ABOUT: dict[str, About] = {
    "char": About("characters of a small text, by newer methods than nanogpt-char", None, "this project"),
    "char-soon": About("characters of a small text in few tokens: Canon layers, SwiGLU, rates", None, "this project"),
    "nanogpt-char": About("characters of a small text: nanoGPT's recipe for a CPU", 2022, "karpathy/nanoGPT"),
}
