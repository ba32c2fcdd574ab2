"""BLOOM, BigScience 2022, arXiv:2211.05100: ALiBi, a norm after the embedding, queries, keys and values by head."""

from families.family import EVERY_BIAS, About, Family
from families.fields import Field, tied, vocabulary
from families.weights import HEAD, QKV, Fused, WeightMap, renamed

FAMILY = Family(
    model_type="bloom", architecture="BloomForCausalLM",
    fixed=EVERY_BIAS | {"position": "alibi", "embed_norm": True},
    fields=(
        vocabulary(250880), Field("hidden_size", "dim", 64), Field("n_layer", "num_layers", 2),
        Field("n_head", "attention.num_heads", 8), Field("seq_length", "max_seq_len", 2048),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("hidden_dropout", "residual_dropout", 0.0),
        Field("attention_dropout", "attention.dropout", 0.0), tied(True),
    ),
    harmless=("slow_but_exact", "masked_softmax_fusion", "bias_dropout_fusion", "offset_alibi", "skip_bias_add",
              "skip_bias_add_qkv", "unk_token_id", "n_inner", "attention_softmax_in_fp32"),
    weights=WeightMap(
        "transformer.h.",
        (Fused(QKV, "self_attention.query_key_value", parts="kv_heads"), *renamed({
            "mixer.branch.out": "self_attention.dense", "mlp.branch.up": "mlp.dense_h_to_4h",
            "mlp.branch.out": "mlp.dense_4h_to_h", "mixer.norm": "input_layernorm",
            "mlp.norm": "post_attention_layernorm"})),
        renamed({"embed.tokens": "transformer.word_embeddings", "embed.norm": "transformer.word_embeddings_layernorm",
                 "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer."),
    about={"bloom": About("ALiBi, a norm after the embedding, biases", 2022, "arXiv:2211.05100")},
    presets={
        # the 7B model
        "bloom": {"dim": 4096, "num_layers": 30, "attention.num_heads": 32, "vocab_size": 250880, "max_seq_len": 2048,
                  "tie_embeddings": True},
    },
)
