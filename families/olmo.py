"""OLMo, Groeneveld et al. 2024, arXiv:2402.00838: LayerNorm without parameters."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="olmo", architecture="OlmoForCausalLM",
    fixed={"mlp": "glu", "norm": "layer", "norm_affine": False},
    fields=(*llama_sizes(vocab=50304), unusual_head_dim(), activation("hidden_act", "silu"), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False), Field("clip_qkv", "attention.clip", None)),
    weights=llama_weights(),
    about={
        "olmo": About("Llama with a LayerNorm that has no parameters", 2024, "arXiv:2402.00838"),
        "olmo-7b": About("the same at 7B; queries, keys and values are clipped", 2024, "arXiv:2402.00838"),
    },
    presets={
        # the 1B model
        "olmo": {"dim": 2048, "num_layers": 16, "attention.num_heads": 16, "hidden_dim": 8192, "vocab_size": 50304,
                 "max_seq_len": 2048, "activation": "silu", "tie_embeddings": True},
        # the 7B model of April 2024
        "olmo-7b": {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "hidden_dim": 11008, "vocab_size": 50304,
                    "max_seq_len": 4096, "activation": "silu", "attention.clip": 8.0},
    },
)
