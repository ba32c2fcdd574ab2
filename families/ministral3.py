"""Ministral 3, Mistral AI 2025: Llama with YaRN, whose queries grow with the position."""

from families.family import Family
from families.fields import Field, activation, head_dim, llama_sizes, tied
from families.layers import ORIGINAL
from families.weights import llama_weights
from families.yarn import BETA, TemperedRope

YARN = (("rope_type", "yarn"), ("rope_theta", 1_000_000.0), ("factor", 16.0), (ORIGINAL, 16384), ("beta_fast", 32.0),
        ("beta_slow", 1.0), ("mscale_all_dim", 1.0), ("mscale", 1.0), (BETA, 0.1))

FAMILY = Family(
    model_type="ministral3", architecture="Ministral3ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=131072, hidden_dim=14336, layers=34, kv=8, context=262144), head_dim(128),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            TemperedRope(absent=YARN), Field("sliding_window", "attention.window", None)),
    weights=llama_weights(),
)
