"""Qwen3-Next, Qwen Team 2025: three layers of Gated DeltaNet for one of gated attention, 512 narrow experts."""

from config import ModelConfig
from families.experts import TRAINING, BalanceLoss, SparseLayers, expert_weights, experts, renormalised, shared_expert
from families.family import About, Family
from families.fields import Field, head_dim, llama_sizes, tied
from families.hybrid import DeltaSizes, MixerTypes, layer_with, mixer_names
from families.layers import Rope
from families.weights import Fused, Same, Taps

NORMS = {"norm": "rms", "norm_unit_offset": True, "qk_norm": "head"}
FIXED = NORMS | {"activation": "silu", "attention.gate": "channel", "moe.shared_gate": True,
                 "gated_delta.gate": True, "gated_delta.num_updates": 1, "gated_delta.neg_eigenvalues": False}
SIZES = {"num_heads": 32, "num_key_heads": 16, "key_dim": 128, "value_dim": 128, "conv_len": 4}


def key_heads(cfg: ModelConfig) -> int:
    return layer_with(cfg, "gated_delta").gated_delta.key_heads


def heads(cfg: ModelConfig) -> int:
    return layer_with(cfg, "attention").attention.num_heads


FAMILY = Family(
    model_type="qwen3_next", architecture="Qwen3NextForCausalLM", fixed=FIXED,
    fields=(*llama_sizes(vocab=151936, dim=2048, hidden_dim=None, layers=48, heads=16, kv=2, context=32768),
            head_dim(256), Field("rms_norm_eps", ("norm_eps", "gated_delta.norm_eps"), 1e-6), tied(False),
            Rope(fraction=0.25), SparseLayers(5632, 512), *experts("num_experts", 512, 10),
            Field("shared_expert_intermediate_size", "moe.shared_dim", 512), renormalised(True), BalanceLoss(0.001),
            MixerTypes({"mixer": "gated_delta"}, {"mixer": "attention"},
                       lambda theirs, layer: (layer + 1) % theirs.get("full_attention_interval", 4) == 0,
                       ("full_attention_interval",)),
            DeltaSizes(lambda theirs: SIZES)),
    only={"hidden_act": "silu"}, harmless=TRAINING,
    weights=expert_weights(
        *mixer_names("linear_attn", {"norm": "norm", "out": "out_proj"},
                     Fused(tuple(f"mixer.branch.{name}" for name in ("q", "k", "v", "gate")),
                           "linear_attn.in_proj_qkvz", parts=key_heads),
                     Fused(("mixer.branch.strength.beta", "mixer.branch.decay.steps"), "linear_attn.in_proj_ba",
                           parts=key_heads),
                     Taps("mixer.branch.conv", "linear_attn.conv1d")),
        Fused(("mixer.branch.q", "mixer.branch.gate.gate"), "self_attn.q_proj", parts=heads),
        *shared_expert("mlp.shared_expert"), Same("mlp.branch.shared.gate", "mlp.shared_expert_gate")),
    about={"qwen3-next": About("three layers of Gated DeltaNet for one of gated attention, 512 experts", 2025,
                               "Qwen's model card")},
    presets={
        # the 80B model with 3B active
        "qwen3-next": FIXED | {f"gated_delta.{name}": value for name, value in SIZES.items()} | {
            "gated_delta.norm_eps": 1e-6, "gated_delta.step_bias": 1.0, "mlp": "moe", "dim": 2048, "num_layers": 48,
            "attention.num_heads": 16, "attention.num_kv_heads": 2, "attention.head_dim": 256, "hidden_dim": 512,
            "vocab_size": 151936, "max_seq_len": 262144, "norm_eps": 1e-6, "rope.theta": 10_000_000.0,
            "rope.fraction": 0.25, "moe.num_experts": 512, "moe.top_k": 10, "moe.shared_dim": 512,
            "moe.balance_loss": 0.01, "layers": ("gated_delta",) * 3 + ("attention",)},
    },
)
