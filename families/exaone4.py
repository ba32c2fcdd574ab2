"""EXAONE 4, LG AI Research 2025, arXiv:2507.11407: only branches are normalised; global layers have no positions."""

from families.family import About, Family
from families.fields import Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.llama import SWIGLU
from families.olmo2 import BRANCH_POST
from families.weights import llama_weights

FAMILY = Family(
    model_type="exaone4", architecture="Exaone4ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "residual": "branch_post", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=102400, hidden_dim=16384, kv=32), unusual_head_dim(), activation("hidden_act", "silu"),
            Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Windows(4096, pattern="sssf", counted=True, nope=True)),
    weights=llama_weights(BRANCH_POST),
    about={
        "exaone4": About("only branches are normalised; windows with, global layers without positions", 2025,
                         "arXiv:2507.11407"),
    },
    presets={
        # the 32B model, before its context was extended
        "exaone4": SWIGLU | {"dim": 5120, "num_layers": 64, "attention.num_heads": 40, "attention.num_kv_heads": 8,
                             "hidden_dim": 27392, "vocab_size": 102400, "max_seq_len": 4096,
                             "rope.theta": 1_000_000.0, "layers": ("local",) * 3 + ("global",),
                             "kinds": {"local": {"attention.window": 4096}, "global": {"position": "none"}}},
    },
)
