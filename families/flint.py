"""Flint, of RecursiveSI: Qwen3 with sinks and sigmoid experts; only layers with a window have positions."""

from families.experts import (
    TRAINING,
    BalanceLoss,
    SparseLayers,
    expert_weights,
    experts,
    renormalised,
    shared_expert,
    shared_width,
)
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, Theirs, activation, head_dim, llama_sizes, tied
from families.layers import Rope, Windows
from families.llama import EPS
from families.weights import Bare


class FullEnds(Windows):
    """The first two layers, every fourth and the last are full."""

    def slides(self, theirs: Theirs, layer: int) -> bool:
        return not (layer < 2 or layer % 4 == 1 or layer == theirs["num_hidden_layers"] - 1)


class FirstTwoDense(SparseLayers):
    """Without mlp_only_layers the first two layers have no experts."""

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        dense = theirs.get("mlp_only_layers")
        return super().sparse(dict(theirs) | {"mlp_only_layers": (0, 1) if dense is None else dense}, layer)


FAMILY = Family(
    model_type="flint", architecture="FlintForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head", "attention.sinks": True, "moe.scores": "sigmoid"},
    fields=(*llama_sizes(vocab=150144, dim=2048, hidden_dim=None, layers=49, kv=4, context=262144), head_dim(128),
            activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            FullEnds(513, nope=True, nope_alone=True), Field("attention_bias", ATTENTION_BIASES, False),
            FirstTwoDense(6144, 512), *experts("num_experts", 256, 6),
            shared_width("shared_expert_intermediate_size", 1024), renormalised(True), BalanceLoss(0.0005)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(Bare("mixer.branch.attend", "self_attn.softmax_offset"),
                           *shared_expert("mlp.shared_expert")),
)
