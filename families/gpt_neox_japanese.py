"""GPT-NeoX Japanese, ABEJA 2022: GPT-NeoX with one branch after the other and one bias, that of the last attention."""

from collections.abc import Sequence
from typing import Any

from config import ModelConfig
from families.family import Family
from families.fields import Field, PerLayer, Theirs, activation, tied, vocabulary
from families.neox import NeoXRope
from families.weights import HEAD, QKV, Fused, Same, WeightMap, renamed

TIMES = "intermediate_multiple_size"


class Wide:
    """The width of the MLP is a multiple of the stream's."""

    names: tuple[str, ...] = (TIMES,)
    defaults: dict[str, Any] = {TIMES: 4}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"hidden_dim": int(theirs["hidden_size"] * theirs[TIMES])}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {TIMES: cfg.hidden_width // cfg.dim}


class LastBias:
    """The attention of the last layer has a bias of its output."""

    names: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number = theirs["num_hidden_layers"]
        return {"attention.out_bias": PerLayer(i == number - 1 for i in range(number))}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {}


class BiasBeside(Same):
    """Their bias is a parameter beside the module."""

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [f"{prefix}{self.theirs}{'_bias' if end == 'bias' else f'.{end}'}"]


FAMILY = Family(
    model_type="gpt_neox_japanese", architecture="GPTNeoXJapaneseForCausalLM",
    fixed={"norm_bias": True},
    fields=(
        vocabulary(32000), Field("hidden_size", "dim", 2560), Field("num_hidden_layers", "num_layers", 32),
        Field("num_attention_heads", "attention.num_heads", 32), Wide(), LastBias(),
        Field("max_position_embeddings", "max_seq_len", 2048), activation("hidden_act", "gelu"),
        Field("layer_norm_eps", "norm_eps", 1e-5), Field("hidden_dropout", "residual_dropout", 0.0),
        Field("attention_dropout", "attention.dropout", 0.1), tied(True), NeoXRope(fraction=1.0),
    ),
    harmless=("is_decoder",),
    weights=WeightMap(
        "gpt_neox_japanese.layers.",
        (Fused(QKV, "attention.query_key_value", parts="kv_heads"), BiasBeside("mixer.branch.out", "attention.dense"),
         *renamed({"mlp.branch.up": "mlp.dense_h_to_4h", "mlp.branch.out": "mlp.dense_4h_to_h",
                   "mixer.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"})),
        renamed({"embed.tokens": "gpt_neox_japanese.embed_in", "norm": "gpt_neox_japanese.final_layer_norm",
                 HEAD: "embed_out"}),
        prefix="gpt_neox_japanese.", head="embed_out"),
)
