"""Falcon, Almazrouei et al. 2023, arXiv:2311.16867: parallel branches, one key head and one norm, or more of both."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import Field, Theirs, activation, hidden, tied, vocabulary
from families.layers import Rope
from families.weights import HEAD, QKV, Fused, WeightMap, renamed


@dataclass(frozen=True)
class Decoder:
    """new_decoder_architecture: any number of key heads, and a norm for each branch, unless num_ln says one."""

    names = ("new_decoder_architecture", "num_kv_heads", "num_ln_in_parallel_attn")
    defaults = {"new_decoder_architecture": False, "num_kv_heads": None, "num_ln_in_parallel_attn": None}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        norms = theirs["num_ln_in_parallel_attn"]
        if not theirs["new_decoder_architecture"]:  # num_kv_heads says nothing then
            if norms not in (None, 1):
                raise ValueError(f"num_ln_in_parallel_attn={norms} needs new_decoder_architecture=True")
            return {"attention.num_kv_heads": 1, "residual": "parallel"}
        return {"attention.num_kv_heads": theirs["num_kv_heads"],
                "residual": "parallel_each" if norms in (None, 2) else "parallel"}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        if cfg.residual == "parallel" and cfg.attention.kv_heads == 1:
            return {"new_decoder_architecture": False}
        return {"new_decoder_architecture": True, "num_kv_heads": cfg.attention.kv_heads,
                "num_ln_in_parallel_attn": 2 if cfg.residual == "parallel_each" else 1}


FAMILY = Family(
    model_type="falcon", architecture="FalconForCausalLM",
    fixed={"residual": "parallel", "norm_bias": True, "attention.num_kv_heads": 1},  # as in the 7B model
    fields=(
        vocabulary(65024), Field("hidden_size", "dim", 4544), Field("num_hidden_layers", "num_layers", 32),
        Field("num_attention_heads", "attention.num_heads", 71), hidden("ffn_hidden_size", None),
        Field("max_position_embeddings", "max_seq_len", 2048), activation("activation", "gelu"),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("hidden_dropout", "residual_dropout", 0.0),
        Field("attention_dropout", "attention.dropout", 0.0), tied(True), Rope(), Decoder(),
        Field("bias", ("attention.q_bias", "attention.k_bias", "attention.v_bias", "attention.out_bias", "mlp_bias"),
              False),
    ),
    only={"multi_query": True, "parallel_attn": True},
    weights=WeightMap(
        "transformer.h.",
        (Fused(QKV, "self_attention.query_key_value", parts="kv_heads"), *renamed({
            "mixer.branch.out": "self_attention.dense", "mlp.branch.up": "mlp.dense_h_to_4h",
            "mlp.branch.out": "mlp.dense_4h_to_h", "norm": "input_layernorm", "mixer.norm": "ln_attn",
            "mlp.norm": "ln_mlp"})),
        renamed({"embed.tokens": "transformer.word_embeddings", "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer."),
    about={
        "falcon": About("one key/value head for 71 query heads; both branches read one norm", 2023, "arXiv:2311.16867"),
        "falcon-40b": About("eight key/value heads, and a norm for each branch", 2023, "arXiv:2311.16867"),
    },
    presets={
        "falcon": {"dim": 4544, "num_layers": 32, "attention.num_heads": 71, "hidden_dim": 18176, "vocab_size": 65024,
                   "max_seq_len": 2048, "activation": "gelu", "tie_embeddings": True},
        "falcon-40b": {"dim": 8192, "num_layers": 60, "attention.num_heads": 128, "attention.num_kv_heads": 8,
                       "hidden_dim": 32768, "vocab_size": 65024, "max_seq_len": 2048, "activation": "gelu",
                       "residual": "parallel_each", "tie_embeddings": True},
    },
)
