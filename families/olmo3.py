"""OLMo 3, Team OLMo 2025: OLMo 2 with a window in three of four layers."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import RopeByType, Windows
from families.llama import SWIGLU
from families.olmo2 import FAMILY as OLMO2

FAMILY = Family(
    model_type="olmo3", architecture="Olmo3ForCausalLM", fixed=OLMO2.fixed,
    fields=(*llama_sizes(vocab=50304), unusual_head_dim(), activation("hidden_act", "silu"), tied(False),
            Field("rms_norm_eps", "norm_eps", 1e-5), Field("attention_bias", ATTENTION_BIASES, False),
            RopeByType(theta=500_000.0, local_theta=500_000.0, windows=Windows(4096, pattern="sssf"))),
    weights=OLMO2.weights,
    about={"olmo3": About("olmo2 with a window in three of four layers", 2025, "arXiv:2512.13961")},
    presets={
        # the 7B model, before its context was lengthened
        "olmo3": SWIGLU | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "hidden_dim": 11008,
                           "vocab_size": 100352, "max_seq_len": 8192, "norm_eps": 1e-6, "rope.theta": 500_000.0,
                           "layers": ("local",) * 3 + ("global",),
                           "kinds": {"local": {"attention.window": 4096}, "global": {}}},
    },
)
