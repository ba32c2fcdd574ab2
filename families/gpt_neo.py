"""GPT-Neo, Black et al. 2021: GPT-2 with a window in every other layer, and scores that are not scaled."""

from typing import Any

from config import ModelConfig
from families.family import Family
from families.fields import Field, Theirs, activation, hidden, tied, vocabulary
from families.layers import FULL, SLIDING, Windows
from families.weights import HEAD, QKV, WeightMap, renamed


class AttentionTypes(Windows):
    """attention_types: kinds of layers and how often they are repeated, [[["global", "local"], 12]]; window_size."""

    names, defaults = ("attention_types", "attention_layers", "window_size"), {"window_size": 256}
    types = {"global": FULL, "local": SLIDING}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        repeated = theirs.get("attention_types") or [[["global", "local"], 12]]
        kinds = [kind for some, times in repeated for kind in some * times]
        if theirs.get("attention_layers") not in (None, kinds):
            raise ValueError("attention_layers is not what attention_types says")
        return super().read({"sliding_window": theirs["window_size"], "num_hidden_layers": theirs["num_layers"],
                             "layer_types": [self.types.get(kind, kind) for kind in kinds]})

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        kinds = ["global" if cfg.at(i).attention.window is None else "local" for i in range(cfg.num_layers)]
        return {"attention_types": [[kinds, 1]], "window_size": super().write(cfg)["sliding_window"]}


FAMILY = Family(
    model_type="gpt_neo", architecture="GPTNeoForCausalLM",
    fixed={"position": "learned", "attention.scale": 1.0, "attention.out_bias": True, "mlp_bias": True,
           "norm_bias": True},
    fields=(
        vocabulary(50257), Field("max_position_embeddings", "max_seq_len", 2048), Field("hidden_size", "dim", 2048),
        Field("num_layers", "num_layers", 24), Field("num_heads", "attention.num_heads", 16),
        hidden("intermediate_size", None), activation("activation_function", "gelu_new", tanh="gelu_new"),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("resid_dropout", "residual_dropout", 0.0),
        Field("embed_dropout", "embed_dropout", 0.0), Field("attention_dropout", "attention.dropout", 0.0),
        tied(True), AttentionTypes(256),
    ),
    weights=WeightMap(
        "transformer.h.",
        renamed(dict(zip(QKV, (f"attn.attention.{name}_proj" for name in "qkv"), strict=True)) | {
            "mixer.branch.out": "attn.attention.out_proj", "mlp.branch.up": "mlp.c_fc",
            "mlp.branch.out": "mlp.c_proj", "mixer.norm": "ln_1", "mlp.norm": "ln_2"}),
        renamed({"embed.tokens": "transformer.wte", "embed.position.table": "transformer.wpe",
                 "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer.", buffers=(".attn.attention.bias", ".attn.attention.masked_bias")),
)
