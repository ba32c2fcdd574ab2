"""Trinity, Arcee 2025: gated attention, norms on both sides of a branch, sigmoid experts that a bias balances."""

from families.experts import TRAINING, FirstDense, SharedExperts, expert_weights, experts, shared_expert
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, Theirs, activation, head_dim, llama_sizes, switch, tied
from families.layers import Rope, Windows
from families.weights import Bare, Same

EVERY = "global_attn_every_n_layers"


class EveryFull(Windows):
    """Every global_attn_every_n_layers-th layer is full."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, EVERY)

    def slides(self, theirs: Theirs, layer: int) -> bool:
        return (layer + 1) % theirs.get(EVERY, 4) != 0


FAMILY = Family(
    model_type="afmoe", architecture="AfmoeForCausalLM",
    fixed={"norm": "rms", "residual": "sandwich", "qk_norm": "head", "attention.gate": "channel",
           "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=200192, dim=2048, hidden_dim=None, heads=16, context=16384), head_dim(128),
            activation("hidden_act", "silu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False), Rope(),
            EveryFull(1024, nope=True, nope_alone=True), Field("attention_bias", ATTENTION_BIASES, False),
            switch("mup_enabled", "embed_scale", False, on="sqrt_dim", off=1.0),
            FirstDense(6144, 1408, first=1, first_name="num_dense_layers"), *experts("num_experts", 64, 6),
            SharedExperts(2, "num_shared_experts"), Field("route_scale", "moe.scale", 1.0)),
    harmless=TRAINING,
    aliases={"num_local_experts": "num_experts"},
    weights=expert_weights(
        Same("mlp.branch.router.logits", "mlp.router.gate"), Bare("mlp.branch.router", "mlp.expert_bias"),
        Same("mixer.branch.gate.gate", "self_attn.gate_proj"), *shared_expert("mlp.shared_experts"),
        norms={"mixer.norm": "input_layernorm", "mixer.post_norm": "post_attention_layernorm",
               "mlp.norm": "pre_mlp_layernorm", "mlp.post_norm": "post_mlp_layernorm"}),
)
