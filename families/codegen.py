"""CodeGen, Nijkamp et al. 2022, arXiv:2203.13474: GPT-J whose queries, values and keys are stored in four parts."""

from families.family import Family
from families.gptj import FAMILY as GPTJ
from families.weights import Fused, WeightMap, renamed

FAMILY = Family(
    model_type="codegen", architecture="CodeGenForCausalLM", fixed=GPTJ.fixed, fields=GPTJ.fields,
    harmless=(*GPTJ.harmless, "scale_attn_weights"),
    weights=WeightMap(
        "transformer.h.",
        (Fused(("mixer.branch.q", "mixer.branch.v", "mixer.branch.k"), "attn.qkv_proj", parts=4), *renamed({
            "mixer.branch.out": "attn.out_proj", "mlp.branch.up": "mlp.fc_in", "mlp.branch.out": "mlp.fc_out",
            "norm": "ln_1"})),
        GPTJ.weights.whole, prefix="transformer.", buffers=(".attn.causal_mask", *GPTJ.weights.buffers)),
)
