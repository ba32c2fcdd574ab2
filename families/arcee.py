"""Arcee's AFM, 2025: Llama with an MLP of two matrices and relu^2."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="arcee", architecture="ArceeForCausalLM",
    fixed={"norm": "rms"},
    fields=(*llama_sizes(dim=2560, hidden_dim=18432, context=4096), head_dim(), activation("hidden_act", "relu2"),
            Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
    about={"arcee": About("Llama with an MLP of two matrices and relu^2", 2025, "Arcee's model card")},
    presets={
        # the 4.5B model, before its context was extended
        "arcee": {"dim": 2560, "num_layers": 36, "attention.num_heads": 20, "attention.num_kv_heads": 4,
                  "attention.head_dim": 128, "hidden_dim": 18432, "vocab_size": 128004, "max_seq_len": 4096,
                  "activation": "relu2"},
    },
)
