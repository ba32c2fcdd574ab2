"""ModernBERT's decoder, Weller et al. 2025 (Ettin), arXiv:2507.11412: windows, a normalised embedding, a dense head."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import Family
from families.fields import ACTIVATIONS, ATTENTION_BIASES, Field, Theirs, activation, hidden, tied, vocabulary
from families.layers import RopeByType, Windows
from families.weights import HEAD, QKV, Fused, WeightMap, renamed

EVERY, BOTH = "global_attn_every_n_layers", "local_attention"


@dataclass(frozen=True)
class HalfWindows(Windows):
    """local_attention is twice the window of all layers but every third one, from the first."""

    window: int = 64

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, EVERY, BOTH)

    @property
    def defaults(self) -> dict[str, Any]:
        return {BOTH: 2 * self.window}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        window = theirs[BOTH] // 2
        if theirs.get("sliding_window") not in (None, window):
            raise ValueError(f"sliding_window={theirs['sliding_window']} is not half of {BOTH}={theirs[BOTH]}: that is "
                             "not known here")
        return super().read(dict(theirs) | {"sliding_window": window})

    def slides(self, theirs: Theirs, layer: int) -> bool:
        return layer % theirs.get(EVERY, 3) != 0

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        written = super().write(cfg)
        return {"layer_types": written["layer_types"], BOTH: 2 * written["sliding_window"]}


FAMILY = Family(
    model_type="modernbert-decoder", architecture="ModernBertDecoderForCausalLM",
    fixed={"mlp": "glu", "embed_norm": True, "skip_first_norm": True},
    fields=(
        vocabulary(50368), Field("hidden_size", "dim", 768), hidden("intermediate_size", 1152),
        Field("num_hidden_layers", "num_layers", 22), Field("num_attention_heads", "attention.num_heads", 12),
        Field("max_position_embeddings", "max_seq_len", 8192), activation("hidden_activation", "gelu"),
        Field("norm_eps", "norm_eps", 1e-5), Field("norm_bias", "norm_bias", False), tied(True),
        Field("attention_bias", ATTENTION_BIASES, False), Field("attention_dropout", "attention.dropout", 0.0),
        Field("embedding_dropout", "embed_dropout", 0.0), Field("mlp_bias", "mlp_bias", False),
        Field("mlp_dropout", "mlp_dropout", 0.0), Field("decoder_bias", "head_bias", True),
        Field("classifier_activation", "head_dense", "gelu", lambda word: ACTIVATIONS[word],
              lambda cfg: {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}.get(cfg.head_dense)),
        RopeByType(theta=160_000.0, windows=HalfWindows())),
    harmless=("initializer_cutoff_factor", "cls_token_id"),
    aliases={"global_rope_theta": "rope_theta", "local_rope_theta": "rope_local_base_freq"},
    weights=WeightMap(
        "model.layers.",
        (Fused(("mlp.branch.gate", "mlp.branch.up"), "mlp.Wi"), *renamed(
            dict(zip(QKV, ("attn.q_proj", "attn.k_proj", "attn.v_proj"), strict=True)) | {
                "mixer.branch.out": "attn.Wo", "mlp.branch.out": "mlp.Wo", "mixer.norm": "attn_norm",
                "mlp.norm": "mlp_norm"})),
        renamed({"embed.tokens": "model.embeddings.tok_embeddings", "embed.norm": "model.embeddings.norm",
                 "norm": "model.final_norm", "head.transform.dense": "lm_head.dense",
                 "head.transform.norm": "lm_head.norm", HEAD: "decoder"}),
        head="decoder"),
)
