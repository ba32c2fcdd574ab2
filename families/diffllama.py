"""The differential transformer, Ye et al. 2024, arXiv:2410.05258: attention is the difference of two softmaxes."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.llama import SWIGLU
from families.weights import PRE, llama_weights

FAMILY = Family(
    model_type="diffllama", architecture="DiffLlamaForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "attention.differential": True},
    fields=(*llama_sizes(dim=2048, hidden_dim=8192, layers=16), head_dim(), activation("hidden_act", "silu"),
            Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False)),
    harmless=("lambda_std_dev",),
    weights=llama_weights(PRE | {"mixer.branch.attend": "self_attn"}),
    about={
        "diff-transformer": About("attention is the difference of two softmaxes", 2024, "arXiv:2410.05258"),
    },
    presets={
        # the 3B model, whose 12 pairs are 24 heads
        "diff-transformer": SWIGLU | {"dim": 3072, "num_layers": 28, "attention.num_heads": 24, "hidden_dim": 8192,
                                      "vocab_size": 100288, "max_seq_len": 4096},
    },
)
