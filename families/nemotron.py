"""Nemotron-4, Parmar et al. 2024, arXiv:2402.16819: a scale of 1 + w, relu^2, partly rotated heads."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="nemotron", architecture="NemotronForCausalLM",
    fixed={"norm": "layer", "norm_unit_offset": True, "norm_bias": True},
    fields=(*llama_sizes(vocab=256000, dim=6144, hidden_dim=24576, heads=48, context=4096), head_dim(),
            activation("hidden_act", "relu2"), Field("norm_eps", "norm_eps", 1e-5), tied(False), Rope(fraction=0.5),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
    about={
        "nemotron": About("relu^2, LayerNorm that scales by 1 + w, half of each head rotated", 2024,
                          "arXiv:2402.16819"),
    },
    presets={
        # the 15B model
        "nemotron": {"dim": 6144, "num_layers": 32, "attention.num_heads": 48, "attention.num_kv_heads": 8,
                     "hidden_dim": 24576, "vocab_size": 256000, "max_seq_len": 4096, "activation": "relu2",
                     "rope.fraction": 0.5},
    },
)
