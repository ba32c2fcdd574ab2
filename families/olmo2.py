"""OLMo 2, OLMo Team 2024, arXiv:2501.00656: only branches are normalised, and queries and keys as a whole."""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.llama import SWIGLU
from families.weights import llama_weights

BRANCH_POST = {"mixer.norm": "post_attention_layernorm", "mlp.norm": "post_feedforward_layernorm"}

FAMILY = Family(
    model_type="olmo2", architecture="Olmo2ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "residual": "branch_post", "qk_norm": "full"},
    fields=(*llama_sizes(vocab=50304), unusual_head_dim(), activation("hidden_act", "silu"), tied(False), Rope(),
            Field("rms_norm_eps", "norm_eps", 1e-5), Field("attention_bias", ATTENTION_BIASES, False)),
    weights=llama_weights(BRANCH_POST | {"mixer.branch.q_full_norm": "self_attn.q_norm",
                                         "mixer.branch.k_full_norm": "self_attn.k_norm"}),
    about={"olmo2": About("only branches are normalised, QK-norm over all heads at once", 2024, "arXiv:2501.00656")},
    presets={
        # the 7B model
        "olmo2": SWIGLU | {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "hidden_dim": 11008,
                           "vocab_size": 100352, "max_seq_len": 4096, "norm_eps": 1e-6, "rope.theta": 500_000.0},
    },
)
