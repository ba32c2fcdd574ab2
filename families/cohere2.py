"""Command R7B (Cohere 2), 2024: both branches read one norm; local layers have rotary positions, global ones none."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.weights import llama_weights

FAMILY = Family(
    model_type="cohere2", architecture="Cohere2ForCausalLM",
    fixed={"mlp": "glu", "residual": "parallel", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=256000, dim=8192, hidden_dim=22528, layers=40, heads=64, context=8192),
            unusual_head_dim(), activation("hidden_act", "silu"), Field("layer_norm_eps", "norm_eps", 1e-5),
            Field("logit_scale", "logit_scale", 0.0625), tied(True), Rope(),
            Windows(4096, pattern="sssf", counted=True, nope=True, nope_alone=True),
            Field("attention_bias", ATTENTION_BIASES, False)),
    harmless=("_sliding_window_pattern", "order_of_interleaved_layers", "position_embedding_type", "rotary_pct",
              "cache_implementation"),
    weights=llama_weights({"norm": "input_layernorm"}),
    about={
        "cohere2": About("both branches read one norm; windows with, global layers without positions", 2024,
                         "arXiv:2504.00698"),
    },
    presets={
        # the 7B model
        "cohere2": {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8,
                    "hidden_dim": 14336, "vocab_size": 256000, "max_seq_len": 8192, "activation": "silu",
                    "rope.theta": 50_000.0, "logit_scale": 0.25, "layers": ("local",) * 3 + ("global",),
                    "kinds": {"local": {"attention.window": 4096}, "global": {"position": "none"}},
                    "tie_embeddings": True},
    },
)
