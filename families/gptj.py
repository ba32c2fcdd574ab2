"""GPT-J, Wang & Komatsuzaki 2021: both branches read one norm; partly rotated heads."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig, rotated_channels
from families.family import About, Family
from families.fields import Field, Theirs, activation, hidden, tied, vocabulary
from families.weights import HEAD, QKV, WeightMap, renamed


@dataclass(frozen=True)
class RotaryDim:
    """rotary_dim: the channels of each head that are rotated."""

    names = ("rotary_dim",)
    defaults = {"rotary_dim": 64}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"rope.fraction": theirs["rotary_dim"] / (theirs["n_embd"] // theirs["n_head"])}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"rotary_dim": rotated_channels(cfg.head_width, cfg.rope.fraction)}


FAMILY = Family(
    model_type="gptj", architecture="GPTJForCausalLM",
    fixed={"residual": "parallel", "rope.layout": "interleaved", "mlp_bias": True, "norm_bias": True,
           "head_bias": True},
    fields=(
        vocabulary(50400), Field("n_positions", "max_seq_len", 2048), Field("n_embd", "dim", 4096),
        Field("n_layer", "num_layers", 28), Field("n_head", "attention.num_heads", 16), hidden("n_inner", None),
        activation("activation_function", "gelu_new", tanh="gelu_new"), Field("layer_norm_epsilon", "norm_eps", 1e-5),
        Field("resid_pdrop", "residual_dropout", 0.0), Field("embd_pdrop", "embed_dropout", 0.0),
        Field("attn_pdrop", "attention.dropout", 0.0), tied(False), RotaryDim(),
    ),
    only={"scale_attn_weights": True, "rotary": True},
    harmless=("n_ctx",),
    weights=WeightMap(
        "transformer.h.",
        renamed(dict(zip(QKV, ("attn.q_proj", "attn.k_proj", "attn.v_proj"), strict=True)) | {
            "mixer.branch.out": "attn.out_proj", "mlp.branch.up": "mlp.fc_in", "mlp.branch.out": "mlp.fc_out",
            "norm": "ln_1"}),
        renamed({"embed.tokens": "transformer.wte", "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer.", buffers=(".attn.bias", ".attn.masked_bias", ".embed_positions")),
    about={
        "gpt-j": About("both branches read one norm, a quarter of each head rotated in pairs", 2021,
                       "Wang & Komatsuzaki"),
    },
    presets={
        # the 6B model
        "gpt-j": {"dim": 4096, "num_layers": 28, "attention.num_heads": 16, "vocab_size": 50400, "max_seq_len": 2048,
                  "rope.fraction": 0.25},
    },
)
