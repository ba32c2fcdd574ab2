"""Llama 2 and 3, Touvron et al. 2023, arXiv:2307.09288; Grattafiori et al. 2024, arXiv:2407.21783: RMSNorm, SwiGLU."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

SWIGLU = {"mlp": "glu", "activation": "silu", "norm": "rms"}
LONG = {"vocab_size": 128256, "max_seq_len": 131072, "rope.theta": 500_000.0, "rope.scaling": "llama3"}
EPS = Field("rms_norm_eps", "norm_eps", 1e-6)

FAMILY = Family(
    model_type="llama", architecture="LlamaForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(), head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
    about={
        "llama2": About("RMSNorm, SwiGLU, rotary positions, no biases", 2023, "arXiv:2307.09288"),
        "llama3": About("four query heads to a key/value head, a large vocabulary", 2024, "arXiv:2407.21783"),
        "llama3.1": About("frequencies scaled for 131,072 tokens", 2024, "arXiv:2407.21783"),
        "llama3.2": About("the same at 1B, head and embedding shared", 2024, "Meta's model card"),
    },
    presets={
        # the 7B model
        "llama2": SWIGLU | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "hidden_dim": 11008,
                            "vocab_size": 32000, "max_seq_len": 4096},
        # the 8B model of version 3.0, table 3
        "llama3": SWIGLU | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8,
                            "hidden_dim": 14336, "vocab_size": 128256, "max_seq_len": 8192, "rope.theta": 500_000.0},
        # the 8B model of version 3.1, and the 1B model of 3.2
        "llama3.1": SWIGLU | LONG | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "rope.factor": 8.0,
                                     "attention.num_kv_heads": 8, "hidden_dim": 14336},
        "llama3.2": SWIGLU | LONG | {"dim": 2048, "num_layers": 16, "attention.num_heads": 32, "rope.factor": 32.0,
                                     "attention.num_kv_heads": 8, "attention.head_dim": 64, "hidden_dim": 8192,
                                     "tie_embeddings": True},
    },
)
