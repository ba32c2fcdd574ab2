"""MiniMax-M2, MiniMax 2025: full QK-norm, partly rotated heads, 256 sigmoid experts that a bias balances."""

from typing import Any

from families.experts import TRAINING, BalanceLoss, expert_weights, experts
from families.family import Family
from families.fields import Theirs, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.llama import EPS
from families.olmoe import FULL_QK_NORMS
from families.weights import PRE, Same


class RotaryDim(Rope):
    """The released files have rotary_dim, the number of rotated channels, in place of a fraction."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, "rotary_dim")

    def read(self, theirs: Theirs) -> dict[str, Any]:
        if theirs.get("rotary_dim") is None:
            return super().read(theirs)
        return super().read({"partial_rotary_factor": theirs["rotary_dim"] / theirs["head_dim"]} | dict(theirs))


FAMILY = Family(
    model_type="minimax_m2", architecture="MiniMaxM2ForCausalLM",
    fixed={"mlp": "moe", "norm": "rms", "qk_norm": "full", "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=200064, dim=3072, hidden_dim=1536, layers=62, heads=48, kv=8, context=196608),
            head_dim(128), activation("hidden_act", "silu"), EPS, tied(False),
            RotaryDim(theta=5_000_000.0, fraction=1.0), *experts("num_local_experts", 256, 8), BalanceLoss(0.001)),
    harmless=(*TRAINING, "router_jitter_noise"),  # of training
    aliases={"num_experts": "num_local_experts"},
    weights=expert_weights(
        Same("mlp.branch.router", "block_sparse_moe"), norms=PRE | FULL_QK_NORMS, room="block_sparse_moe",
        names={"gate": "w1", "up": "w3", "out": "w2"}),
)
