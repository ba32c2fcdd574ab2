"""Falcon 7B, Almazrouei et al. 2023, arXiv:2311.16867: one key and value head; both branches read one norm."""

from families.family import About, Family
from families.fields import Field, activation, hidden, tied, vocabulary
from families.layers import Rope
from families.weights import HEAD, QKV, Fused, WeightMap, renamed

FAMILY = Family(
    model_type="falcon", architecture="FalconForCausalLM",
    fixed={"residual": "parallel", "norm_bias": True, "attention.num_kv_heads": 1},
    fields=(
        vocabulary(65024), Field("hidden_size", "dim", 4544), Field("num_hidden_layers", "num_layers", 32),
        Field("num_attention_heads", "attention.num_heads", 71), hidden("ffn_hidden_size", None),
        Field("max_position_embeddings", "max_seq_len", 2048), activation("activation", "gelu"),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("hidden_dropout", "residual_dropout", 0.0),
        Field("attention_dropout", "attention.dropout", 0.0), tied(True), Rope(),
        Field("bias", ("attention.q_bias", "attention.k_bias", "attention.v_bias", "attention.out_bias", "mlp_bias"),
              False),
    ),
    only={"multi_query": True, "parallel_attn": True},
    harmless=("num_kv_heads",),  # with multi_query there is one
    weights=WeightMap(
        "transformer.h.",
        (Fused(QKV, "self_attention.query_key_value"), *renamed({
            "mixer.branch.out": "self_attention.dense", "mlp.branch.up": "mlp.dense_h_to_4h",
            "mlp.branch.out": "mlp.dense_4h_to_h", "norm": "input_layernorm"})),
        renamed({"embed.tokens": "transformer.word_embeddings", "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer."),
    about={
        "falcon": About("one key/value head for 71 query heads; both branches read one norm", 2023, "arXiv:2311.16867"),
    },
    presets={
        "falcon": {"dim": 4544, "num_layers": 32, "attention.num_heads": 71, "hidden_dim": 18176, "vocab_size": 65024,
                   "max_seq_len": 2048, "activation": "gelu", "tie_embeddings": True},
    },
)
