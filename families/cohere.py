"""Command R, Cohere 2024: both branches read one norm; in the larger model each head has a norm of its own."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, switch, tied, unusual_head_dim
from families.layers import Rope
from families.weights import llama_weights

FAMILY = Family(
    model_type="cohere", architecture="CohereForCausalLM",
    fixed={"mlp": "glu", "residual": "parallel", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=256000, dim=8192, hidden_dim=22528, layers=40, heads=64, context=8192),
            unusual_head_dim(), activation("hidden_act", "silu"), Field("layer_norm_eps", "norm_eps", 1e-5),
            Field("logit_scale", "logit_scale", 0.0625), tied(True), Rope(theta=500_000.0),
            Field("attention_bias", ATTENTION_BIASES, False),
            switch("use_qk_norm", "qk_norm", False, on="each_head", off="none")),
    weights=llama_weights({"norm": "input_layernorm"}),
    about={
        "command-r-plus": About("both branches read one norm; each head has its own QK-norm", 2024,
                                "Cohere's model card"),
    },
    presets={
        # the 104B model
        "command-r-plus": {"dim": 12288, "num_layers": 64, "attention.num_heads": 96, "attention.num_kv_heads": 8,
                           "hidden_dim": 33792, "vocab_size": 256000, "max_seq_len": 131072, "activation": "silu",
                           "rope.theta": 75_000_000.0, "logit_scale": 0.8333333333333334, "qk_norm": "each_head",
                           "tie_embeddings": True},
    },
)
