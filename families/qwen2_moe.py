"""Qwen1.5 and 2 with experts, Qwen Team 2024, arXiv:2407.10671: sixty experts, and a shared one with a gate."""

from families.experts import TRAINING, BalanceLoss, SparseLayers, expert_weights, experts, renormalised, shared_expert
from families.family import Family
from families.fields import QKV_BIASES, Field, Theirs, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope, Windows
from families.llama import EPS
from families.weights import Same


class EveryOtherWindow(Windows):
    """Every other layer has the window, up to max_window_layers."""

    def slides(self, theirs: Theirs, layer: int) -> bool:
        return layer % 2 == 0 and layer < theirs.get("max_window_layers", 28)


FAMILY = Family(
    model_type="qwen2_moe", architecture="Qwen2MoeForCausalLM",
    fixed={"norm": "rms", "moe.shared_gate": True},
    fields=(*llama_sizes(vocab=151936, dim=2048, hidden_dim=None, layers=24, heads=16, kv=16, context=32768),
            unusual_head_dim(), activation("hidden_act", "silu"), EPS, tied(False), Rope(),
            EveryOtherWindow(switched=True), Field("qkv_bias", QKV_BIASES, True), SparseLayers(5632, 1408),
            *experts("num_experts", 60, 4),
            Field("shared_expert_intermediate_size", "moe.shared_dim", 5632), renormalised(False), BalanceLoss(0.001)),
    harmless=TRAINING,
    weights=expert_weights(*shared_expert("mlp.shared_expert"),
                           Same("mlp.branch.shared.gate", "mlp.shared_expert_gate")),
)
