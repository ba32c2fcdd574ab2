"""SantaCoder and StarCoder, Ben Allal et al. 2023, arXiv:2301.03988; Li et al. 2023, arXiv:2305.06161.

GPT-2 with one key/value head.
"""

from families.family import EVERY_BIAS, Family
from families.fields import Field, Implied, activation
from families.gpt2 import FIELDS, NORMS, NUMBERS, OUTSIDE
from families.weights import QKV, Fused, WeightMap, renamed

FAMILY = Family(
    model_type="gpt_bigcode", architecture="GPTBigCodeForCausalLM",
    fixed=EVERY_BIAS | {"position": "learned"},
    fields=(
        *FIELDS, activation("activation_function", "gelu_pytorch_tanh"), *NUMBERS,
        Field("multi_query", "attention.num_kv_heads", True, lambda given: 1 if given else None,
              lambda cfg: cfg.attention.kv_heads == 1),
        Implied("num_key_value_heads", lambda theirs: 1 if theirs["multi_query"] else theirs["n_head"],
                lambda cfg: cfg.attention.kv_heads),
    ),
    only={"scale_attn_weights": True},
    harmless=("n_ctx", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner",
              "validate_runner_input", "pre_allocate_kv_cache", "pad_key_length", "max_sequence_length",
              "max_batch_size"),
    weights=WeightMap(
        "transformer.h.",
        (Fused(QKV, "attn.c_attn", parts="kv_heads"), *NORMS, *renamed({
            "mixer.branch.out": "attn.c_proj", "mlp.branch.up": "mlp.c_fc", "mlp.branch.out": "mlp.c_proj"})),
        OUTSIDE,
        prefix="transformer.", buffers=(".attn.bias", ".attn.masked_bias", "transformer.bias")),
)
