"""Hunyuan-A13B, Tencent 2025: Hunyuan with experts, and one as wide as the others for all tokens."""

from typing import Any

from config import ModelConfig
from families.experts import TRAINING, expert_weights, experts, shared_expert
from families.family import Family
from families.fields import Theirs
from families.hunyuan import FAMILY as DENSE
from families.hunyuan import QK_NORMS
from families.weights import PRE, Same


class SharedAsWide:
    """The expert of all tokens has the width of the others."""

    names: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"moe.shared_dim": theirs["intermediate_size"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {}


FAMILY = Family(
    model_type="hunyuan_v1_moe", architecture="HunYuanMoEV1ForCausalLM",
    fixed=DENSE.fixed | {"mlp": "moe"},
    fields=(*DENSE.fields, *experts("num_experts", 1, 1, top="moe_topk"), SharedAsWide()),
    harmless=(*DENSE.harmless, *TRAINING),
    aliases={"num_local_experts": "num_experts", "num_experts_per_tok": "moe_topk"},
    weights=expert_weights(Same("mlp.branch.router.logits", "mlp.gate.wg"), *shared_expert("mlp.shared_mlp"),
                           norms=PRE | QK_NORMS),
)
