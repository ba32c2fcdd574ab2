"""Gemma 3, Gemma Team 2025, arXiv:2503.19786: five local layers to a global one, each with its own wavelengths."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, power, tied
from families.gemma2 import GEMMA, SANDWICH
from families.layers import RopeByType, Windows
from families.llama import EPS
from families.weights import llama_weights

# the models that read images too, without what sees them
LONG = {"vocab_size": 262208, "max_seq_len": 131072, "norm_eps": 1e-6, "tie_embeddings": True,
        "layers": ("local",) * 5 + ("global",),
        "kinds": {"local": {"attention.window": 1024},
                  "global": {"rope.theta": 1_000_000.0, "rope.scaling": "linear", "rope.factor": 8.0}}}

FAMILY = Family(
    model_type="gemma3_text", architecture="Gemma3ForCausalLM",
    fixed=GEMMA | {"residual": "sandwich", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=262208, dim=2304, hidden_dim=9216, layers=26, heads=8, kv=4, context=131072),
            head_dim(256), activation("hidden_activation", "gelu_pytorch_tanh"), EPS, tied(True),
            RopeByType(theta=1_000_000.0, windows=Windows(4096, pattern="sssssf", counted=True)),
            power("query_pre_attn_scalar", 256),
            Field("attn_logit_softcapping", "attention.softcap", None),
            Field("final_logit_softcapping", "logit_softcap", None),
            Field("attention_bias", ATTENTION_BIASES, False)),
    harmless=("hidden_act", "cache_implementation", "_sliding_window_pattern"),
    weights=llama_weights(SANDWICH),
    about={
        "gemma3": About("five local layers to a global one with longer wavelengths, QK-norm", 2025, "arXiv:2503.19786"),
        "gemma3-4b": About("the same at 4B, the global layers' positions eight times as close", 2025,
                           "arXiv:2503.19786"),
        "gemma3-27b": About("the same at 27B", 2025, "arXiv:2503.19786"),
    },
    presets={
        # the 1B model
        "gemma3": {"dim": 1152, "num_layers": 26, "attention.num_heads": 4, "attention.num_kv_heads": 1,
                   "attention.head_dim": 256, "hidden_dim": 6912, "vocab_size": 262144, "max_seq_len": 32768,
                   "norm_eps": 1e-6, "layers": ("local",) * 5 + ("global",),
                   "kinds": {"local": {"attention.window": 512}, "global": {"rope.theta": 1_000_000.0}},
                   "tie_embeddings": True},
        # the 4B and the 27B model
        "gemma3-4b": LONG | {"dim": 2560, "num_layers": 34, "attention.num_heads": 8, "attention.num_kv_heads": 4,
                             "attention.head_dim": 256, "hidden_dim": 10240},
        "gemma3-27b": LONG | {"dim": 5376, "num_layers": 62, "attention.num_heads": 32, "attention.num_kv_heads": 16,
                              "attention.head_dim": 128, "attention.scale": 168**-0.5, "hidden_dim": 21504},
    },
)
