"""SantaCoder and StarCoder, Ben Allal et al. 2023, arXiv:2301.03988; Li et al. 2023, arXiv:2305.06161.

GPT-2 with one key/value head.
"""

from families.family import EVERY_BIAS, Family
from families.fields import Field, Implied, activation, hidden, tied, vocabulary
from families.weights import HEAD, QKV, Fused, WeightMap, renamed

FAMILY = Family(
    model_type="gpt_bigcode", architecture="GPTBigCodeForCausalLM",
    fixed=EVERY_BIAS | {"position": "learned"},
    fields=(
        vocabulary(50257), Field("n_positions", "max_seq_len", 1024), Field("n_embd", "dim", 768),
        Field("n_layer", "num_layers", 12), Field("n_head", "attention.num_heads", 12), hidden("n_inner", None),
        activation("activation_function", "gelu_pytorch_tanh"), Field("layer_norm_epsilon", "norm_eps", 1e-5),
        Field("resid_pdrop", "residual_dropout", 0.1), Field("embd_pdrop", "embed_dropout", 0.1),
        Field("attn_pdrop", "attention.dropout", 0.1), tied(True),
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
        (Fused(QKV, "attn.c_attn", parts="kv_heads"), *renamed({
            "mixer.branch.out": "attn.c_proj", "mlp.branch.up": "mlp.c_fc", "mlp.branch.out": "mlp.c_proj",
            "mixer.norm": "ln_1", "mlp.norm": "ln_2"})),
        renamed({"embed.tokens": "transformer.wte", "embed.position.table": "transformer.wpe",
                 "norm": "transformer.ln_f", HEAD: "lm_head"}),
        prefix="transformer.", buffers=(".attn.bias", ".attn.masked_bias", "transformer.bias")),
)
