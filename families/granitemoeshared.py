"""Granite 4 with experts, IBM 2025: Granite with experts, and one for all tokens."""

from families.experts import shared_width
from families.family import Family
from families.granitemoe import FAMILY as ALONE
from families.granitemoe import STACKS
from families.weights import PRE, Fused, Same, llama_weights

SHARED = (Fused(("mlp.branch.shared.mlp.gate", "mlp.branch.shared.mlp.up"), "shared_mlp.input_linear"),
          Same("mlp.branch.shared.mlp.out", "shared_mlp.output_linear"))

FAMILY = Family(
    model_type="granitemoeshared", architecture="GraniteMoeSharedForCausalLM",
    fixed=ALONE.fixed, fields=(*ALONE.fields, shared_width("shared_intermediate_size", 0)),
    harmless=ALONE.harmless, aliases=ALONE.aliases, weights=llama_weights(PRE, *STACKS, *SHARED),
)
