"""Persimmon, Elsen et al. 2023: LayerNorm, also of queries and keys, relu^2, half of each head rotated."""

from families.family import EVERY_BIAS, Family
from families.fields import Field, activation, llama_sizes, switch, tied
from families.layers import Rope
from families.weights import HEAD, PRE, QKV, Fused, WeightMap, renamed

FAMILY = Family(
    model_type="persimmon", architecture="PersimmonForCausalLM",
    fixed=EVERY_BIAS,
    fields=(*llama_sizes(vocab=262144, hidden_dim=16384, layers=36, heads=64, context=16384, grouped=False),
            activation("hidden_act", "relu2"), Field("layer_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(fraction=0.5), switch("qk_layernorm", "qk_norm", True, on="head", off="none")),
    weights=WeightMap(
        "model.layers.",
        (Fused(QKV, "self_attn.query_key_value", parts="kv_heads"), *renamed(PRE | {
            "mixer.branch.out": "self_attn.dense", "mlp.branch.up": "mlp.dense_h_to_4h",
            "mlp.branch.out": "mlp.dense_4h_to_h", "mixer.branch.q_norm": "self_attn.q_layernorm",
            "mixer.branch.k_norm": "self_attn.k_layernorm"})),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.final_layernorm", HEAD: "lm_head"})),
)
