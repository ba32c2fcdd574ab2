"""Granite 3 with experts, IBM 2024: Granite whose gates and inputs of all experts are one stack."""

from families.experts import TRAINING, BalanceLoss, experts
from families.family import Family
from families.fields import activation, llama_sizes, tied, unusual_head_dim
from families.granite import FACTORS
from families.layers import Rope
from families.llama import EPS
from families.weights import PRE, Same, StackedRows, llama_weights

STACKS = (Same("mlp.branch.router.logits", "block_sparse_moe.router.layer"),
          StackedRows(("mlp.branch.experts.gate", "mlp.branch.experts.up"), "block_sparse_moe.input_linear"),
          Same("mlp.branch.experts.out", "block_sparse_moe.output_linear"))

FAMILY = Family(
    model_type="granitemoe", architecture="GraniteMoeForCausalLM",
    fixed={"mlp": "moe", "norm": "rms"},
    fields=(*llama_sizes(), unusual_head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            *(field for field in FACTORS if field.name != "mlp_bias"), *experts("num_local_experts", 8, 2),
            BalanceLoss(0.001)),
    harmless=TRAINING,
    aliases={"num_experts": "num_local_experts"},
    weights=llama_weights(PRE, *STACKS),
)
