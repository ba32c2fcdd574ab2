"""ERNIE 4.5 with experts, Baidu 2025: a softmax whose choice a bias balances, two experts for all tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange

from config import ModelConfig
from families.experts import (
    TRAINING,
    BalanceLoss,
    SharedExperts,
    SparseLayers,
    expert_weights,
    experts,
    shared_expert,
)
from families.family import Family
from families.fields import Field, Theirs, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import Bare

FIRST, LAST, EVERY = (f"moe_layer_{name}" for name in ("start_index", "end_index", "interval"))


@dataclass(frozen=True)
class SpacedLayers(SparseLayers):
    """Of the layers from a first to a last one every moe_layer_interval-th has experts."""

    names: tuple[str, ...] = ("intermediate_size", "moe_intermediate_size", FIRST, LAST, EVERY)

    @property
    def defaults(self) -> dict[str, Any]:
        return super().defaults | {FIRST: 1, LAST: -1, EVERY: 1}

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        last = theirs["num_hidden_layers"] - 1 if theirs[LAST] == -1 else theirs[LAST]
        return (layer + 1) % theirs[EVERY] == 0 and theirs[FIRST] <= layer <= last

    def pattern(self, sparse: list[bool]) -> dict[str, Any]:
        found = [i for i, there in enumerate(sparse) if there] or [len(sparse)]
        every = found[1] - found[0] if len(found) > 1 else 1
        return {FIRST: found[0], LAST: found[-1], EVERY: every}


class OneRow(Bare):
    """Theirs is a matrix of one row."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [rearrange(theirs, "1 e -> e")]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return rearrange(ours[0], "e -> 1 e")


FAMILY = Family(
    model_type="ernie4_5_moe", architecture="Ernie4_5_MoeForCausalLM",
    fixed={"norm": "rms", "rope.layout": "interleaved", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=103424, dim=2560, hidden_dim=None, layers=28, heads=20, kv=4, context=131072),
            unusual_head_dim(), activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(True),
            Rope(theta=500_000.0), SpacedLayers(12288, 1536), *experts("moe_num_experts", 64, 6, top="moe_k"),
            SharedExperts(2, "moe_num_shared_experts"), BalanceLoss(0.001, top="moe_k")),
    only={"moe_norm_min": 1e-12},
    harmless=TRAINING,
    aliases={"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"},
    weights=expert_weights(OneRow("mlp.branch.router", "mlp.moe_statics.e_score_correction_bias"),
                           *shared_expert("mlp.shared_experts")),
)
