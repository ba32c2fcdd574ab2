"""Llama 4, Meta 2025, without images: chunks with positions, global layers without, experts with weighed inputs."""

from dataclasses import dataclass
from typing import Any

from config import LayerConfig, ModelConfig
from families.experts import (
    TRAINING,
    BalanceLoss,
    SharedAsWide,
    SparseLayers,
    experts,
    shared_expert,
)
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, PerLayer, Theirs, activation, head_dim, llama_sizes, tied
from families.layers import FULL, Rope
from families.weights import PRE, Same, StackedRows, Transposing, llama_weights, renamed

CHUNKED, SIZE = "chunked_attention", "attention_chunk_size"
FIXED = {"norm": "rms", "rope.layout": "interleaved", "moe.scores": "sigmoid", "moe.renormalise": False,
         "moe.weigh_inputs": True}
NORMED = {"qk_norm": "head", "attention.qk_norm_affine": False}


@dataclass(frozen=True)
class Chunks:
    """Which layers attend within chunks, which have positions, and what else goes with these.

    Without lists, every no_rope_layer_interval-th layer has no positions, and the others have chunks. A layer with
    positions may normalise its queries and keys, after they are rotated: without a learned scale the order does not
    matter. In one without, queries may grow with their position.
    """

    names = ("no_rope_layers", "no_rope_layer_interval", "layer_types", SIZE, "use_qk_norm", "attn_temperature_tuning",
             "floor_scale", "attn_scale")
    defaults = {"no_rope_layer_interval": 4, SIZE: 8192, "use_qk_norm": True, "attn_temperature_tuning": True,
                "floor_scale": 8192, "attn_scale": 0.1}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number, every = theirs["num_hidden_layers"], theirs["no_rope_layer_interval"]
        rotated = theirs.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(number)]
        types = theirs.get("layer_types") or [CHUNKED if there else FULL for there in rotated]
        if len(rotated) != number or len(types) != number or set(types) - {CHUNKED, FULL} or theirs[SIZE] is None:
            raise ValueError(f"no_rope_layers and layer_types need a value for each of the {number} layers, of the "
                             f"latter {CHUNKED} or {FULL}, and {SIZE} a number")
        normed, scale = theirs["use_qk_norm"], theirs["attn_temperature_tuning"] and theirs["attn_scale"] or None
        found = {"position": PerLayer("rope" if there else "none" for there in rotated),
                 "attention.chunk": PerLayer(theirs[SIZE] if kind == CHUNKED else None for kind in types),
                 "qk_norm": PerLayer("head" if there and normed else "none" for there in rotated),
                 "attention.temperature_scale": PerLayer(None if there else scale for there in rotated)}
        if any(rotated) and normed:
            found["attention.qk_norm_affine"] = False
        if scale and not all(rotated):
            found |= {"attention.temperature_len": theirs["floor_scale"], "attention.temperature_first": 1}
        return found

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        rotated = [int(layer.position == "rope") for layer in layers]
        scale = _first(layers, lambda own: own.temperature_scale)
        return {"no_rope_layers": rotated, "use_qk_norm": any(layer.qk_norm != "none" for layer in layers),
                "layer_types": [CHUNKED if layer.attention.chunk else FULL for layer in layers],
                SIZE: _first(layers, lambda own: own.chunk) or self.defaults[SIZE],
                "attn_temperature_tuning": scale is not None, "attn_scale": scale or self.defaults["attn_scale"],
                "floor_scale": cfg.attention.temperature_len}


def _first(layers: list[LayerConfig], value: Any) -> Any:
    """The first value of the layers' attention that is not None, if any."""
    return next((found for found in map(value, (layer.attention for layer in layers)) if found is not None), None)


@dataclass(frozen=True)
class ChosenLayers(SparseLayers):
    """moe_layers have experts, or every interleave_moe_layer_step-th layer."""

    names: tuple[str, ...] = ("intermediate_size_mlp", "intermediate_size", "moe_layers", "interleave_moe_layer_step")
    dense_name: str = "intermediate_size_mlp"
    expert_name: str = "intermediate_size"

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        if theirs.get("moe_layers") is not None:
            return layer in theirs["moe_layers"]
        return (layer + 1) % theirs.get("interleave_moe_layer_step", 1) == 0

    def pattern(self, sparse: list[bool]) -> dict[str, Any]:
        return {"moe_layers": [i for i, there in enumerate(sparse) if there]}


DENSE = {f"mlp.branch.{ours}": f"feed_forward.{ours}_proj" for ours in ("gate", "up")} | {
    "mlp.branch.out": "feed_forward.down_proj"}

FAMILY = Family(
    model_type="llama4_text", architecture="Llama4ForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(vocab=202048, dim=5120, hidden_dim=None, layers=48, heads=40, kv=8, context=131072),
            head_dim(128), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=500_000.0), Chunks(), Field("attention_bias", ATTENTION_BIASES, False),
            ChosenLayers(16384, 8192), *experts("num_local_experts", 16, 1), SharedAsWide(), BalanceLoss(0.001)),
    harmless=(*TRAINING, "router_jitter_noise"),
    weights=llama_weights(
        PRE, *renamed(DENSE), *shared_expert("feed_forward.shared_expert"),
        Same("mlp.branch.router.logits", "feed_forward.router"),
        StackedRows(("mlp.branch.experts.gate", "mlp.branch.experts.up"), "feed_forward.experts.gate_up_proj",
                    bare=True, transposed=True),
        Transposing("mlp.branch.experts.out", "feed_forward.experts.down_proj")),
    about={"llama4": About("chunks with positions, global layers without, 128 experts and one for all tokens", 2025,
                           "Meta's model card")},
    presets={
        # the 400B model with 17B active (Maverick)
        "llama4": FIXED | {
            "activation": "silu", "dim": 5120, "num_layers": 48, "attention.num_heads": 40,
            "attention.num_kv_heads": 8, "attention.head_dim": 128, "vocab_size": 202048, "max_seq_len": 1_048_576,
            "rope.theta": 500_000.0, "attention.temperature_first": 1, "hidden_dim": 16384, "moe.num_experts": 128,
            "moe.top_k": 1, "moe.shared_dim": 8192, "moe.balance_loss": 0.001,
            "layers": ("dense", "experts", "dense", "global"),
            "kinds": {"dense": {"mlp": "glu", "attention.chunk": 8192},
                      "experts": {"mlp": "moe", "hidden_dim": 8192, "attention.chunk": 8192},
                      "global": {"mlp": "moe", "hidden_dim": 8192, "position": "none",
                                 "attention.temperature_scale": 0.1}}},
    },
)
