"""Hunyuan-A13B, Tencent 2025: Hunyuan with experts, and one as wide as the others for all tokens."""

from families.experts import TRAINING, SharedAsWide, expert_weights, experts, shared_expert
from families.family import Family
from families.hunyuan import FAMILY as DENSE
from families.hunyuan import QK_NORMS
from families.weights import PRE, Same

FAMILY = Family(
    model_type="hunyuan_v1_moe", architecture="HunYuanMoEV1ForCausalLM",
    fixed=DENSE.fixed | {"mlp": "moe"},
    fields=(*DENSE.fields, *experts("num_experts", 1, 1, top="moe_topk"), SharedAsWide()),
    harmless=(*DENSE.harmless, *TRAINING),
    aliases={"num_local_experts": "num_experts", "num_experts_per_tok": "moe_topk"},
    weights=expert_weights(Same("mlp.branch.router.logits", "mlp.gate.wg"), *shared_expert("mlp.shared_mlp"),
                           norms=PRE | QK_NORMS),
)
