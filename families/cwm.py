"""CWM, FAIR 2025, arXiv:2510.02387: Llama 3 with a window in three of four layers."""

from families.family import Family
from families.fields import Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope, Windows
from families.weights import llama_weights

LONG = (("rope_type", "llama3"), ("factor", 16.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0),
        ("original_max_position_embeddings", 8192))

FAMILY = Family(
    model_type="cwm", architecture="CwmForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=128256, dim=6144, hidden_dim=21504, layers=64, heads=48, kv=8, context=131072),
            head_dim(128), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=1_000_000.0, absent=LONG), Windows(8192, pattern="fsss"), Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
)
