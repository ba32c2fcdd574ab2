"""T5, Raffel et al. 2019, arXiv:1910.10683: an encoder and a decoder, learned numbers for distances, no biases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange

from config import ModelConfig
from families.family import About, Family
from families.fields import ACTIVATIONS, Field, OneField, Theirs, hidden, vocabulary
from families.weights import HEAD, Same, WeightMap, renamed

DROPOUTS = ("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout")


class Depths:
    """num_layers of the encoder, and num_decoder_layers, which is the same if it is absent."""

    names, defaults = ("num_layers", "num_decoder_layers"), {"num_layers": 6}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"encoder_layers": theirs["num_layers"],
                "num_layers": theirs.get("num_decoder_layers") or theirs["num_layers"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"num_layers": cfg.encoder_layers, "num_decoder_layers": cfg.num_layers}


@dataclass(frozen=True)
class Projection(OneField):
    """feed_forward_proj: an activation such as relu, or gated-gelu, in which gelu means its approximation by tanh."""

    name: str = "feed_forward_proj"

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given = theirs.get(self.name, "relu")
        word = given.removeprefix("gated-")
        if word not in ACTIVATIONS:
            raise ValueError(f"{self.name}={given!r} is not known here: use one of {', '.join(ACTIVATIONS)}, or gated- "
                             "before it")
        tanh = given == "gated-gelu"
        return {"mlp": "mlp" if word == given else "glu", "activation": "gelu_tanh" if tanh else ACTIVATIONS[word]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        words = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
        if cfg.mlp == "glu":
            words |= {"gelu_tanh": "gelu", "gelu": "gelu_python"}
        return {self.name: ("gated-" if cfg.mlp == "glu" else "") + words[cfg.activation]}


class Tied:
    """tie_word_embeddings: the head shares the embedding, and the logits are multiplied by d_model ** -0.5.

    Newer versions of their library write that it is so, always, and scale_decoder_outputs besides.
    """

    names, defaults = ("tie_word_embeddings", "scale_decoder_outputs"), {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        tied = theirs.get("tie_word_embeddings") is not False
        scaled = theirs.get("scale_decoder_outputs", tied)
        return {"tie_embeddings": tied, "logit_scale": "rsqrt_dim" if scaled else 1.0}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"tie_word_embeddings": cfg.tie_embeddings, "scale_decoder_outputs": cfg.logit_scale == "rsqrt_dim"}


@dataclass(frozen=True)
class GateAndUp(Same):
    """The two matrices of a gated MLP, wi_0 and wi_1."""

    by_rows = True

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [f"{prefix}{self.theirs}_{number}.{end}" for number in (0, 1)]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return rearrange(list(ours), "two f d -> two f d")

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return list(theirs)


def _attention(branch: str, theirs: str) -> dict[str, str]:
    names = zip(("q", "k", "v", "out"), "qkvo", strict=True)
    return {f"{branch}.branch.{ours}": f"{theirs}.{name}" for ours, name in names}


def _layer(mlp: str) -> tuple[Same, ...]:
    """The rules of a layer of the encoder or the decoder, in which `mlp` stands before the names of the MLP."""
    attention, dense = "layer.0.SelfAttention", f"{mlp}.DenseReluDense"
    names = _attention("mixer", attention) | {
        "mixer.branch.distance_bias": f"{attention}.relative_attention_bias", "mixer.norm": "layer.0.layer_norm",
        "mlp.branch.up": f"{dense}.wi", "mlp.branch.out": f"{dense}.wo", "mlp.norm": f"{mlp}.layer_norm"}
    return GateAndUp(("mlp.branch.gate", "mlp.branch.up"), f"{dense}.wi"), *renamed(names)


def _size(dim: int, layers: int, heads: int, hidden_dim: int) -> dict[str, Any]:
    return {"dim": dim, "num_layers": layers, "encoder_layers": layers, "attention.num_heads": heads,
            "attention.head_dim": 64, "hidden_dim": hidden_dim, "vocab_size": 32128, "max_seq_len": 512}


FIRST = dict.fromkeys(DROPOUTS, 0.1) | {"activation": "relu", "tie_embeddings": True, "logit_scale": "rsqrt_dim"}

FAMILY = Family(
    model_type="t5", architecture="T5ForConditionalGeneration",
    fixed={"norm": "rms", "norm_eps": 1e-6, "position": "t5", "attention.scale": 1.0, "cross": "attention"},
    fields=(
        vocabulary(32128), Field("d_model", "dim", 512),
        Field("d_kv", "attention.head_dim", 64, from_config=lambda cfg: cfg.head_width),
        hidden("d_ff", 2048), Depths(), Field("num_heads", "attention.num_heads", 8),
        Field("n_positions", "max_seq_len", 512), Field("layer_norm_epsilon", "norm_eps", 1e-6),
        Field("relative_attention_num_buckets", "t5.num_buckets", 32),
        Field("relative_attention_max_distance", "t5.max_distance", 128),
        Field("dropout_rate", DROPOUTS, 0.1), Projection(), Tied(),
    ),
    only={"is_encoder_decoder": True},
    harmless=("initializer_factor", "output_past", "dense_act_fn", "is_gated_act"),  # two say feed_forward_proj again
    weights=WeightMap(
        "decoder.block.",
        (*_layer("layer.2"), *renamed(_attention("cross", "layer.1.EncDecAttention")), Same(
            "cross.norm", "layer.1.layer_norm")),
        renamed({"embed.tokens": "shared", "encoder.norm": "encoder.final_layer_norm",
                 "norm": "decoder.final_layer_norm", HEAD: "lm_head"}),
        prefix="", encoder_layer="encoder.block.", encoder_rules=_layer("layer.1")),
    about={
        "t5-small": About("an encoder and a decoder, tables of distances, scores that are not scaled", 2019,
                          "arXiv:1910.10683"),
        "t5": About("t5-small at 12 + 12 layers", 2019, "arXiv:1910.10683"),
        "t5-v1.1": About("t5 with a gated MLP and a head of its own", 2020, "arXiv:2002.05202"),
    },
    presets={
        "t5-small": FIRST | _size(512, 6, 8, 2048),
        "t5": FIRST | _size(768, 12, 12, 3072),
        # trained without dropout
        "t5-v1.1": {"mlp": "glu", "activation": "gelu_tanh"} | _size(768, 12, 12, 2048),
    },
)
