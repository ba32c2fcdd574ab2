"""K-EXAONE, LG AI Research 2026: EXAONE 4's attention before usual norms, and DeepSeek-V3's experts."""

from families.experts import (
    TRAINING,
    ListedLayers,
    SharedExperts,
    expert_weights,
    experts,
    renormalised,
    routed,
    shared_expert,
)
from families.family import Family
from families.fields import Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.weights import Same

FAMILY = Family(
    model_type="exaone_moe", architecture="ExaoneMoeForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head", "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=102400, hidden_dim=None, kv=32), unusual_head_dim(), activation("hidden_act", "silu"),
            Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            Windows(4096, pattern="sssf", counted=True, nope=True),
            ListedLayers(16384, 1024, first_name="first_k_dense_replace"), *experts("num_experts", 64, 8),
            SharedExperts(1, "num_shared_experts"), *routed(1, 1, 2.5), renormalised(True)),
    harmless=TRAINING,
    weights=expert_weights(Same("mlp.branch.router", "mlp"), *shared_expert("mlp.shared_experts")),
)
