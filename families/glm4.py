"""GLM-4, GLM Team 2024, arXiv:2406.12793: norms on both sides of a branch, half of each head rotated in pairs."""

from families.family import About, Family
from families.fields import QKV_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.llama import SWIGLU
from families.weights import HEAD, LINEARS, Fused, WeightMap, renamed

NORMS = {"mixer.norm": "input_layernorm", "mixer.post_norm": "post_self_attn_layernorm",
         "mlp.norm": "post_attention_layernorm", "mlp.post_norm": "post_mlp_layernorm"}
UNFUSED = {ours: theirs for ours, theirs in LINEARS.items() if ours not in ("mlp.branch.gate", "mlp.branch.up")}

FAMILY = Family(
    model_type="glm4", architecture="Glm4ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "residual": "sandwich", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=151552, hidden_dim=13696, layers=40, kv=2, context=131072), head_dim(128),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1.5625e-07), tied(False),
            Rope(fraction=0.5), Field("attention_bias", QKV_BIASES, True)),
    weights=WeightMap(
        "model.layers.",
        (*renamed(UNFUSED | NORMS), Fused(("mlp.branch.gate", "mlp.branch.up"), "mlp.gate_up_proj")),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.norm", HEAD: "lm_head"})),
    about={
        "glm4": About("norms on both sides of a branch, half of each head rotated in pairs", 2025, "arXiv:2406.12793"),
    },
    presets={
        # the 9B model of April 2025
        "glm4": SWIGLU | {"dim": 4096, "num_layers": 40, "attention.num_heads": 32, "attention.num_kv_heads": 2,
                          "attention.head_dim": 128, "hidden_dim": 13696, "vocab_size": 151552, "max_seq_len": 32768,
                          "rope.fraction": 0.5, **dict.fromkeys(QKV_BIASES, True)},
    },
)
