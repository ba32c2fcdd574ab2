"""FlexOlmo, Shi et al. 2025, arXiv:2507.07024: OLMo 2 with experts that were trained apart."""

from families.experts import TRAINING, BalanceLoss, expert_weights, experts, renormalised
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.llama import EPS
from families.olmo2 import BRANCH_POST
from families.olmoe import FULL_QK_NORMS

FAMILY = Family(
    model_type="flex_olmo", architecture="FlexOlmoForCausalLM",
    fixed={"mlp": "moe", "norm": "rms", "residual": "branch_post", "qk_norm": "full"},
    fields=(*llama_sizes(vocab=100352, context=4096), unusual_head_dim(), activation("hidden_act", "silu"), EPS,
            tied(False), Rope(theta=500_000.0), Field("attention_bias", ATTENTION_BIASES, False),
            *experts("num_experts", 7, 5), renormalised(False), BalanceLoss(0.01)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(norms=BRANCH_POST | FULL_QK_NORMS),
)
