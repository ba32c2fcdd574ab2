"""Granite with windows and experts, IBM 2026: sinks, a theta for each layer, an expert for all tokens."""

from families.family import Family
from families.granite_swa import THETAS
from families.granitemoeshared import FAMILY as SHARED
from families.granitemoeshared import SHARED as SHARED_WEIGHTS
from families.layers import Windows
from families.weights import PRE, Bare, Same, StackedRows, llama_weights

FAMILY = Family(
    model_type="granitemoe_swa", architecture="GraniteMoeSWAForCausalLM",
    fixed=SHARED.fixed | {"attention.sinks": True}, fields=(*SHARED.fields, THETAS, Windows(128, pattern="fsss")),
    harmless=SHARED.harmless, aliases=SHARED.aliases,
    weights=llama_weights(
        PRE | {"mixer.branch.attend": "self_attn"}, *SHARED_WEIGHTS,
        Same("mlp.branch.router.logits", "block_sparse_moe.router"),
        StackedRows(("mlp.branch.experts.gate", "mlp.branch.experts.up"), "block_sparse_moe.experts.gate_up_proj",
                    bare=True),
        Bare("mlp.branch.experts.out", "block_sparse_moe.experts.down_proj")),
)
