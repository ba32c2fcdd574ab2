"""MPT, MosaicML 2023: ALiBi, no bias at all."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import Field, Theirs, scale_of, tied, vocabulary
from families.weights import HEAD, QKV, Fused, WeightMap, renamed

PLAIN = {"attn_type": "multihead_attention", "alibi": True, "alibi_bias_max": 8}  # of attn_config, what may act
IDLE = {"attn_impl", "attn_pdrop", "softmax_scale", "model_type", "return_dict", "id2label", "label2id"}


@dataclass(frozen=True)
class Scores:
    """attn_config: ALiBi, and the factor on the scores. Their slopes are ours if the heads are a power of two."""

    names = ("attn_config",)
    defaults = {"attn_config": {}}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given, heads = theirs["attn_config"] or {}, theirs["n_heads"]
        for name, value in given.items():
            if name not in IDLE and value not in (None, False, "", 0, PLAIN.get(name)):
                raise ValueError(f"attn_config has {name}={value!r}, which is not known here")
        if not given.get("alibi", True):
            raise ValueError("attn_config has alibi=False, which is not known here")
        if heads & (heads - 1):
            raise ValueError(f"n_heads={heads} is not a power of two: the slopes of such models are not known here")
        return {"attention.scale": given.get("softmax_scale"), "attention.dropout": given.get("attn_pdrop") or 0.0}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        dropout = {"attn_pdrop": cfg.attention.dropout} if cfg.attention.dropout else {}
        return {"attn_config": PLAIN | {"softmax_scale": scale_of(cfg)} | dropout}


@dataclass(frozen=True)
class Expansion:
    """expansion_ratio: the width of the MLP in widths of the model."""

    names = ("expansion_ratio",)
    defaults = {"expansion_ratio": 4}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"hidden_dim": theirs["expansion_ratio"] * theirs["d_model"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"expansion_ratio": cfg.hidden_width // cfg.dim}


FAMILY = Family(
    model_type="mpt", architecture="MptForCausalLM",
    fixed={"position": "alibi", "activation": "gelu"},
    fields=(
        vocabulary(50368), Field("d_model", "dim", 2048), Field("n_layers", "num_layers", 24),
        Field("n_heads", "attention.num_heads", 16), Field("max_seq_len", "max_seq_len", 2048),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("resid_pdrop", "residual_dropout", 0.0),
        Field("emb_pdrop", "embed_dropout", 0.0), tied(True), Scores(), Expansion(),
    ),
    only={"no_bias": True, "embedding_fraction": 1.0},
    harmless=("learned_pos_emb", "init_device", "init_config", "norm_type", "verbose"),
    weights=WeightMap(
        "transformer.blocks.",
        (Fused(QKV, "attn.Wqkv"), *renamed({
            "mixer.branch.out": "attn.out_proj", "mlp.branch.up": "ffn.up_proj", "mlp.branch.out": "ffn.down_proj",
            "mixer.norm": "norm_1", "mlp.norm": "norm_2"})),
        renamed({"embed.tokens": "transformer.wte", "norm": "transformer.norm_f", HEAD: "lm_head"}),
        prefix="transformer."),
    about={"mpt": About("ALiBi, no biases", 2023, "MosaicML's blog")},
    presets={
        # the 7B model
        "mpt": {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "vocab_size": 50432, "max_seq_len": 2048,
                "tie_embeddings": True},
    },
)
