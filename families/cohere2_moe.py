"""Command A+, Cohere 2026: Cohere 2 with experts; its first layers may have none."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.experts import TRAINING, expert_layer, expert_weights, experts, shared_expert
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, PerLayer, Theirs, activation, head_dim, llama_sizes, tied
from families.layers import FULL, SLIDING, Rope

FIRST, PREFIX, WIDTH = "first_k_dense_replace", "prefix_dense_sliding_window_pattern", "prefix_dense_intermediate_size"
SHARED, HOW = "num_shared_experts", "shared_expert_combination_strategy"


@dataclass(frozen=True)
class Layers:
    """Which layers have a window, positions and experts: those with a window have positions, and dense ones may too."""

    names = ("layer_types", "mlp_layer_types", "sliding_window", "sliding_window_pattern", "intermediate_size", FIRST,
             PREFIX, WIDTH)
    defaults = {"sliding_window": 4096, "sliding_window_pattern": 4, "intermediate_size": 22528, FIRST: 0, PREFIX: 1}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number, first, window = theirs["num_hidden_layers"], theirs[FIRST], theirs["sliding_window"]
        kinds = theirs.get("mlp_layer_types") or ["dense"] * first + ["sparse"] * (number - first)
        types = theirs.get("layer_types") or [
            SLIDING if (i + 1) % every else FULL for every, count in (
                (theirs[PREFIX], first), (theirs["sliding_window_pattern"], number - first)) for i in range(count)]
        known = not set(kinds) - {"dense", "sparse"} and not set(types) - {FULL, SLIDING}
        if not known or len(kinds) != number or len(types) != number:
            raise ValueError(f"mlp_layer_types and layer_types need a known word for each of the {number} layers")
        narrow, wide = theirs["intermediate_size"], theirs.get(WIDTH) or theirs["intermediate_size"]
        windows = [window if kind == SLIDING else None for kind in types]
        dense = [kind == "dense" for kind in kinds]
        return {"attention.window": PerLayer(windows),
                "position": PerLayer("rope" if near is not None or alone and theirs[PREFIX] == 1 else "none"
                                     for near, alone in zip(windows, dense, strict=True)),
                "mlp": PerLayer("glu" if alone else "moe" for alone in dense),
                "hidden_dim": PerLayer(wide if alone else narrow for alone in dense)}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        dense, windows = [layer for layer in layers if layer.mlp != "moe"], [layer.attention.window for layer in layers]
        rotated = all(layer.position == "rope" for layer in dense)
        return {"layer_types": [FULL if near is None else SLIDING for near in windows],
                "mlp_layer_types": ["sparse" if layer.mlp == "moe" else "dense" for layer in layers],
                "sliding_window": next((near for near in windows if near is not None), None),
                "intermediate_size": expert_layer(cfg).hidden_width, PREFIX: 1 if rotated else 2,
                WIDTH: dense[0].hidden_width if dense else None}


class Norms:
    """RMSNorm if rms_norm_eps is given, else LayerNorm."""

    names = ("rms_norm_eps", "layer_norm_eps")
    defaults = {"layer_norm_eps": 1e-5}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        eps = theirs.get("rms_norm_eps")
        return {"norm": "layer", "norm_eps": theirs["layer_norm_eps"]} if eps is None else {
            "norm": "rms", "norm_eps": eps}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"layer_norm_eps": cfg.norm_eps} if cfg.norm == "layer" else {"rms_norm_eps": cfg.norm_eps}


class Selection:
    """The scores of the chosen experts; those of a softmax always have a sum of 1."""

    names = ("expert_selection_fn", "norm_topk_prob")
    defaults = {"expert_selection_fn": "softmax", "norm_topk_prob": True}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        scores = theirs["expert_selection_fn"]
        return {"moe.scores": scores, "moe.renormalise": scores == "softmax" or theirs["norm_topk_prob"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = expert_layer(cfg).moe
        return {"expert_selection_fn": own.scores, "norm_topk_prob": own.renormalise}


class Shared:
    """num_shared_experts, which are one together; what they give is added, and no mean is taken."""

    names = (SHARED, HOW)
    defaults = {SHARED: 0, HOW: "average"}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        if theirs[SHARED] and theirs[HOW] != "sum":
            raise ValueError(f"{HOW}={theirs[HOW]!r} is not known here: only 'sum' is")
        return {"moe.shared_dim": theirs[SHARED] * theirs["intermediate_size"] or None}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = expert_layer(cfg)
        return {SHARED: (own.moe.shared_dim or 0) // own.hidden_width, HOW: "sum"}


FAMILY = Family(
    model_type="cohere2_moe", architecture="Cohere2MoeForCausalLM",
    fixed={"residual": "parallel", "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=256000, dim=8192, hidden_dim=None, layers=40, heads=64, context=8192), head_dim(128),
            activation("hidden_act", "silu"), Norms(), Field("logit_scale", "logit_scale", 0.0625), tied(True), Rope(),
            Layers(), Field("attention_bias", ATTENTION_BIASES, False), *experts("num_experts", 8, 2), Selection(),
            Shared()),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(*shared_expert("mlp.shared_experts"), norms={"norm": "input_layernorm"}),
)
