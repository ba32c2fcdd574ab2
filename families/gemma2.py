"""Gemma 2, Gemma Team 2024, arXiv:2408.00118: norms on both sides of a branch, soft caps, local and global layers."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, power, tied
from families.layers import Rope, Windows
from families.llama import EPS
from families.weights import llama_weights

GEMMA = {"mlp": "glu", "norm": "rms", "norm_unit_offset": True, "embed_scale": "sqrt_dim"}
SANDWICH = {"mixer.norm": "input_layernorm", "mixer.post_norm": "post_attention_layernorm",
            "mlp.norm": "pre_feedforward_layernorm", "mlp.post_norm": "post_feedforward_layernorm"}

FAMILY = Family(
    model_type="gemma2", architecture="Gemma2ForCausalLM",
    fixed=GEMMA | {"residual": "sandwich"},
    fields=(*llama_sizes(vocab=256000, dim=2304, hidden_dim=9216, layers=26, heads=8, kv=4, context=8192),
            head_dim(256), activation("hidden_activation", "gelu_pytorch_tanh"), EPS, tied(True), Rope(),
            Windows(4096, pattern="sf"), power("query_pre_attn_scalar", 256),
            Field("attn_logit_softcapping", "attention.softcap", 50.0),
            Field("final_logit_softcapping", "logit_softcap", 30.0),
            Field("attention_bias", ATTENTION_BIASES, False)),
    harmless=("hidden_act", "cache_implementation"),  # hidden_activation is the one that acts
    weights=llama_weights(SANDWICH),
    about={
        "gemma2": About("norms on both sides of a branch, soft caps, every other layer local", 2024,
                        "arXiv:2408.00118"),
    },
    presets={
        # the 2B model
        "gemma2": {"dim": 2304, "num_layers": 26, "attention.num_heads": 8, "attention.num_kv_heads": 4,
                   "attention.head_dim": 256, "hidden_dim": 9216, "vocab_size": 256000, "max_seq_len": 8192,
                   "norm_eps": 1e-6, "layers": ("local", "global"),
                   "kinds": {"local": {"attention.window": 4096}, "global": {}}, "attention.softcap": 50.0,
                   "logit_softcap": 30.0, "tie_embeddings": True},
    },
)
