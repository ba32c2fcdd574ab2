"""gpt-oss, OpenAI 2025, arXiv:2508.10925: clamped experts with biases, sinks, every other layer local."""

from families.experts import TRAINING, BalanceLoss, experts
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, head_dim, llama_sizes, tied
from families.layers import Rope, Windows
from families.weights import Alternating, Same, Transposing, llama_weights

FIXED = {"mlp": "moe", "norm": "rms", "activation": "quick_gelu", "attention.sinks": True, "mlp_bias": True,
         "moe.expert": "clamped_glu", "moe.router_bias": True}
YARN = (("rope_type", "yarn"), ("factor", 32.0), ("beta_fast", 32.0), ("beta_slow", 1.0), ("truncate", False),
        ("original_max_position_embeddings", 4096))

FAMILY = Family(
    model_type="gpt_oss", architecture="GptOssForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(vocab=201088, dim=2880, hidden_dim=2880, layers=36, heads=64, kv=8, context=131072),
            head_dim(64), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(theta=150_000.0, absent=YARN),
            Windows(128, pattern="sf"), Field("attention_bias", ATTENTION_BIASES, True),
            *experts("num_local_experts", 128, 4), Field("swiglu_limit", "clamped_glu.limit", 7.0), BalanceLoss(0.001)),
    only={"hidden_act": "silu", "swiglu_alpha": 1.702},
    harmless=(*TRAINING, "initial_context_length"),
    aliases={"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
    weights=llama_weights(
        {"mixer.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm", "mixer.branch.attend": "self_attn"},
        Same("mlp.branch.router.logits", "mlp.router"),
        Alternating(("mlp.branch.experts.gate", "mlp.branch.experts.up"), "mlp.experts.gate_up_proj"),
        Transposing("mlp.branch.experts.out", "mlp.experts.down_proj")),
    about={"gpt-oss": About("clamped experts, learned sinks, every other layer local", 2025, "arXiv:2508.10925")},
    presets={
        # the 120B model
        "gpt-oss": FIXED | {
            **dict.fromkeys(ATTENTION_BIASES, True), "dim": 2880, "num_layers": 36, "attention.num_heads": 64,
            "attention.num_kv_heads": 8, "attention.head_dim": 64, "hidden_dim": 2880, "vocab_size": 201088,
            "max_seq_len": 131072, "moe.num_experts": 128, "moe.top_k": 4, "moe.balance_loss": 0.004,
            "rope.theta": 150_000.0, "rope.scaling": "yarn", "rope.factor": 32.0, "rope.original_len": 4096,
            "rope.truncate": False, "layers": ("local", "global"),
            "kinds": {"local": {"attention.window": 128}, "global": {}}},
    },
)
