"""OPT, Zhang et al. 2022, arXiv:2205.01068: GPT-2 with relu; its learned positions begin at row 2 of their table."""

from families.family import EVERY_BIAS, About, Family
from families.fields import ATTENTION_BIASES, Field, Implied, activation, hidden, tied, vocabulary
from families.weights import HEAD, QKV, Rows, WeightMap, renamed

FAMILY = Family(
    model_type="opt", architecture="OPTForCausalLM",
    fixed={"norm_bias": True, "position": "learned"},
    fields=(
        vocabulary(50272), Field("hidden_size", "dim", 768), Field("num_hidden_layers", "num_layers", 12),
        hidden("ffn_dim", 3072), Field("max_position_embeddings", "max_seq_len", 2048),
        Field("num_attention_heads", "attention.num_heads", 12), activation("activation_function", "relu"),
        Field("dropout", "residual_dropout", 0.1), Field("attention_dropout", "attention.dropout", 0.0), tied(True),
        Field("enable_bias", (*ATTENTION_BIASES, "mlp_bias"), True),
        Implied("word_embed_proj_dim", lambda theirs: theirs["hidden_size"], lambda cfg: cfg.dim),
    ),
    only={"do_layer_norm_before": True, "layer_norm_elementwise_affine": True},
    harmless=("activation_dropout", "prefix"),
    weights=WeightMap(
        "model.decoder.layers.",
        renamed(dict(zip(QKV, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), strict=True)) | {
            "mixer.branch.out": "self_attn.out_proj", "mlp.branch.up": "fc1", "mlp.branch.out": "fc2",
            "mixer.norm": "self_attn_layer_norm", "mlp.norm": "final_layer_norm"}),
        (Rows("embed.position.table", "model.decoder.embed_positions", 2), *renamed({
            "embed.tokens": "model.decoder.embed_tokens", "norm": "model.decoder.final_layer_norm",
            HEAD: "lm_head"}))),
    about={"opt": About("gpt2 with relu", 2022, "arXiv:2205.01068")},
    presets={
        # the 125M model
        "opt": EVERY_BIAS | {"dim": 768, "num_layers": 12, "attention.num_heads": 12, "hidden_dim": 3072,
                             "vocab_size": 50272, "max_seq_len": 2048, "activation": "relu", "tie_embeddings": True,
                             "residual_dropout": 0.1},
    },
)
