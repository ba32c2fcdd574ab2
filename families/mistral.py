"""Mistral, Jiang et al. 2023, arXiv:2310.06825: Llama with a window in all layers."""

from families.family import About, Family
from families.fields import Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.llama import EPS, SWIGLU
from families.weights import llama_weights

FAMILY = Family(
    model_type="mistral", architecture="MistralForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(hidden_dim=14336, kv=8, context=131072), head_dim(), activation("hidden_act", "silu"), EPS,
            tied(False), Rope(), Field("sliding_window", "attention.window", 4096)),
    weights=llama_weights(),
    about={"mistral": About("Llama with a window in all layers", 2023, "arXiv:2310.06825")},
    presets={
        # the 7B model, version 0.1
        "mistral": SWIGLU | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8,
                             "hidden_dim": 14336, "vocab_size": 32000, "max_seq_len": 32768, "attention.window": 4096},
    },
)
