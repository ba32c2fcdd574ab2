"""dots.llm1, rednote-hilab 2025, arXiv:2506.05767: DeepSeek-V3's experts and Qwen3's attention."""

from families.experts import (
    TRAINING,
    FirstDense,
    SharedExperts,
    expert_weights,
    experts,
    renormalised,
    routed,
    shared_expert,
)
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, Theirs, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.llama import EPS


class LastWindows(Windows):
    """Layers have the window from max_window_layers on."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, "max_window_layers")

    def slides(self, theirs: Theirs, layer: int) -> bool:
        return layer >= theirs.get("max_window_layers", 62)


FAMILY = Family(
    model_type="dots1", architecture="Dots1ForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head", "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=152064, dim=4608, hidden_dim=None, layers=62, kv=32), unusual_head_dim(),
            activation("hidden_act", "silu"), EPS, tied(False), Rope(), LastWindows(),
            Field("attention_bias", ATTENTION_BIASES, False), FirstDense(10944, 1408, first=0),
            *experts("n_routed_experts", None, None), SharedExperts(None), *routed(1, 1, 1.0), renormalised(False)),
    harmless=TRAINING,
    aliases={"num_local_experts": "n_routed_experts"},
    weights=expert_weights(*shared_expert("mlp.shared_experts")),
)
