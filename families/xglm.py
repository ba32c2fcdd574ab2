"""XGLM, Lin et al. 2021, arXiv:2112.10668: GPT-2 with sines and cosines as positions, and scaled embeddings."""

from typing import Any

from config import ModelConfig
from families.family import EVERY_BIAS, Family
from families.fields import Field, Theirs, activation, hidden, switch, tied, vocabulary
from families.weights import HEAD, LINEARS, WeightMap, renamed


class Waves:
    """The last of its wavelengths is 10,000 in units of the first; with our theta one more pair would come to that.

    The class zeroes the row of its table of positions that has the number of the token of padding; of these the first
    two are never read.
    """

    names: tuple[str, ...] = ("pad_token_id",)
    defaults: dict[str, Any] = {"pad_token_id": 1}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        if (theirs["pad_token_id"] or 0) > 1:
            raise ValueError(f"pad_token_id={theirs['pad_token_id']} would leave a token without a position: that is "
                             "not known here")
        pairs = theirs["d_model"] // 2
        return {"sinusoidal.theta": 10_000.0 ** (pairs / (pairs - 1))}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {}


FAMILY = Family(
    model_type="xglm", architecture="XGLMForCausalLM",
    fixed=EVERY_BIAS | {"position": "sinusoidal", "sinusoidal.layout": "half", "sinusoidal.first": 2},
    fields=(
        vocabulary(256008), Field("d_model", "dim", 1024), Field("num_layers", "num_layers", 24),
        hidden("ffn_dim", 4096), Field("max_position_embeddings", "max_seq_len", 2048),
        Field("attention_heads", "attention.num_heads", 16), activation("activation_function", "gelu"),
        Field("dropout", ("residual_dropout", "embed_dropout"), 0.1),
        Field("attention_dropout", "attention.dropout", 0.1), Field("activation_dropout", "mlp_dropout", 0.0),
        tied(True), switch("scale_embedding", "embed_scale", True, on="sqrt_dim", off=1.0), Waves(),
    ),
    weights=WeightMap(
        "model.layers.",
        renamed(LINEARS | {"mixer.branch.out": "self_attn.out_proj", "mlp.branch.up": "fc1", "mlp.branch.out": "fc2",
                           "mixer.norm": "self_attn_layer_norm", "mlp.norm": "final_layer_norm"}),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.layer_norm", HEAD: "lm_head"}),
        buffers=(".embed_positions.weights",)),
)
