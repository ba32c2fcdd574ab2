"""Published models that transformers has no class of: presets alone, each equal to its formula by a test."""

from typing import Any

from configuration.plain import PLAIN_MODEL
from families import speedruns
from families.family import ADAMW, About

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # xai-org/grok-1: 316B parameters by its shapes, 84B active; announced as 314B with 86B
    "grok1": {
        "model": PLAIN_MODEL | {
            "dim": 6144, "num_layers": 64, "attention.num_heads": 48, "attention.num_kv_heads": 8,
            "attention.head_dim": 128, "hidden_dim": 32768,
            "vocab_size": 131072, "max_seq_len": 8192, "mlp": "moe", "norm": "rms", "residual": "sandwich",
            "moe.num_experts": 8, "moe.top_k": 2, "moe.renormalise": False,
            "attention.softcap": 30.0, "attention.scale": 0.08838834764831845, "logit_scale": 0.5773502691896257,
            "tie_embeddings": True, "embed_scale": "sqrt_dim",
        },
        "train": ADAMW | {"lr": 3e-4},
    },
    # nGPT, Loshchilov et al. 2024, arXiv:2410.01131: the 0.5B model. All vectors have length 1, and no norm has weights
    "ngpt": {
        "model": PLAIN_MODEL | {
            "dim": 1024, "num_layers": 24, "attention.num_heads": 16, "hidden_dim": 4096, "vocab_size": 32000,
            "max_seq_len": 4096, "mlp": "scaled_glu", "activation": "silu", "norm": "none", "final_norm": False,
            "residual": "ngpt", "qk_norm": "unit", "attention.qk_norm_after_rope": True, "attention.scale": 8.0,
            "token_scale": True, "unit_weights": True,
        },
        "train": ADAMW | {"lr": 1.5e-3, "weight_decay": 0.0, "warmup_steps": 0, "min_lr_ratio": 0.0},
    },
    **speedruns.PRESETS,
    # Megalodon, Ma et al. 2024, arXiv:2404.08801: the model of 7.3B in XuezheMax/megalodon. Its two maps to the stream
    # are one here, of what both read
    "megalodon": {
        "model": PLAIN_MODEL | {
            "dim": 4096, "num_layers": 32, "hidden_dim": 8192, "vocab_size": 32000, "max_seq_len": 32768,
            "mixer": "cema", "cema.state_dim": 16, "cema.num_heads": 4, "cema.qk_dim": 1024, "cema.value_dim": 8192,
            "cema.chunk": 2048, "cema.norm_groups": 64, "cema.norm_eps": 1e-5, "final_norm_groups": 64,
            "residual": "two_hop", "mlp": "glu", "activation": "silu", "norm_bias": True, "rope.layout": "interleaved",
            "init": "fan_in",
        },
        "train": ADAMW | {"lr": 3.5e-4, "warmup_steps": 2500},
    },
    # RWKV-7, Peng et al. 2025, arXiv:2503.14456: the World model of 0.1B, trained as the authors' script for this size
    # does. Matrices are drawn from a normal distribution where the authors draw orthogonal ones
    "rwkv7": {
        "model": PLAIN_MODEL | {
            "dim": 768, "num_layers": 12, "hidden_dim": 3072, "vocab_size": 65536, "max_seq_len": 4096,
            "mixer": "rwkv7", "rwkv7.num_heads": 12, "rwkv7.head_dim": 64, "rwkv7.decay_rank": 64,
            "rwkv7.rate_rank": 64, "rwkv7.value_rank": 32, "rwkv7.gate_rank": 128, "rwkv7.norm_eps": 64e-5,
            "activation": "relu2", "token_shift": ("mlp",), "token_shift_power": 4.0, "norm_bias": True,
            "embed_norm": True, "position": "none", "init": "fan_in", "out_init": "zero",
        },
        "train": ADAMW | {"lr": 8e-4, "beta2": 0.99, "adam_eps": 1e-18, "min_lr_ratio": 0.0375, "warmup_steps": 10},
    },
    # xLSTM[7:1], Beck et al. 2024, arXiv:2405.04517, at the size of its smallest models: 7 of 8 layers are an mLSTM
    # alone, the others an sLSTM and an MLP. The paper chooses the places of the few sLSTMs one by one
    "xlstm-v1": {
        "model": PLAIN_MODEL | {
            "dim": 768, "num_layers": 24, "hidden_dim": 1024, "vocab_size": 50304, "max_seq_len": 2048,
            "mixer": "slstm", "slstm.num_heads": 4, "slstm.conv_len": 4, "slstm.norm_eps": 1e-5,
            "slstm.out_proj": False, "mlp": "glu", "activation": "gelu", "position": "none", "out_init": "depth",
            "layers": (*["mlstm"] * 3, "slstm", *["mlstm"] * 4), "kinds": {"mlstm": {
                "mixer": "mlstm_v1", "mlp": "none", "mlstm_v1.num_heads": 4, "mlstm_v1.expand": 2.0,
                "mlstm_v1.block_dim": 4, "mlstm_v1.conv_len": 4, "mlstm_v1.eps": 1e-6, "mlstm_v1.norm_eps": 1e-5}},
        },
        "train": ADAMW | {"lr": 1e-3},
    },
}
ABOUT: dict[str, About] = {
    "grok1": About("eight experts, norms on both sides of a branch, capped scores", 2024, "xai-org/grok-1"),
    "ngpt": About("the stream, queries, keys and matrices have length 1; no norm learns", 2024, "arXiv:2410.01131"),
    **speedruns.ABOUT,
    "megalodon": About("complex moving averages, then attention within chunks; norms over time", 2024,
                       "arXiv:2404.08801"),
    "rwkv7": About("a state that takes out what it reads; gates of few numbers, shifted tokens", 2025,
                   "arXiv:2503.14456"),
    "xlstm-v1": About("memories with exponential gates: 7 layers of matrices (mLSTM) to 1 of numbers (sLSTM)", 2024,
                      "arXiv:2405.04517"),
}
