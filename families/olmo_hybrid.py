"""OLMo Hybrid, Merrill et al. 2026, arXiv:2604.03444: Gated DeltaNet in place of OLMo 3's windows."""

from dataclasses import replace
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, Theirs, llama_sizes, tied, unusual_head_dim
from families.hybrid import DeltaSizes, MixerTypes, TapsOfParts, mixer_names
from families.layers import Rope
from families.llama import SWIGLU
from families.weights import Same, llama_weights

FIXED = SWIGLU | {"qk_norm": "full", "gated_delta.gate": True, "gated_delta.num_updates": 1,
                  "gated_delta.norm_eps": 1e-5}
NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "gate": "g_proj", "out": "o_proj", "norm": "o_norm",
         "decay.steps": "a_proj", "strength.beta": "b_proj"}


def usual_sizes(theirs: Theirs) -> dict[str, int]:
    """What is absent: as many heads as attention has, keys 3/4 as wide as the model together, values twice as wide."""
    heads = theirs["num_attention_heads"]
    key_dim = theirs.get("linear_key_head_dim") or int(
        0.75 * theirs["hidden_size"] / (theirs.get("linear_num_key_heads") or heads))
    return {"num_heads": heads, "num_key_heads": heads, "key_dim": key_dim, "value_dim": 2 * key_dim, "conv_len": 4}


def fourth(theirs: Theirs, layer: int) -> bool:
    """Every fourth layer is full, or the last if there are fewer."""
    number = theirs["num_hidden_layers"]
    return layer % 4 == 3 or number < 4 and layer == number - 1


class PerhapsRope(Rope):
    """RoPE, or no positions if its rope_theta is None."""

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given = theirs.get("rope_parameters") or {"rope_theta": self.theta}
        return {"position": "none"} if given.get("rope_theta") is None else super().read(theirs)

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        written = super().write(cfg)
        return written if cfg.position == "rope" else {
            "rope_parameters": {"rope_type": "default", "rope_theta": None}}


FAMILY = Family(
    model_type="olmo_hybrid", architecture="OlmoHybridForCausalLM", fixed=FIXED,
    fields=(*llama_sizes(vocab=100352, dim=3840, layers=32, heads=30, context=65536), unusual_head_dim(),
            Field("rms_norm_eps", "norm_eps", 1e-6), tied(False), PerhapsRope(),
            Field("attention_bias", ATTENTION_BIASES, False),
            Field("linear_allow_neg_eigval", "gated_delta.neg_eigenvalues", True),
            MixerTypes({"mixer": "gated_delta", "residual": "pre"}, {"mixer": "attention", "residual": "branch_post"},
                       fourth),
            DeltaSizes(usual_sizes)),
    only={"hidden_act": "silu"},
    harmless=tuple(f"linear_{name}" for name in ("a_log_min", "a_log_max", "dt_min", "dt_max", "dt_init_floor")),
    weights=replace(llama_weights(
        {"mixer.norm": "feedforward_layer_norm", "mlp.norm": "post_feedforward_layernorm",
         "mixer.branch.q_full_norm": "self_attn.q_norm", "mixer.branch.k_full_norm": "self_attn.k_norm"},
        *mixer_names("linear_attn", NAMES, TapsOfParts("mixer.branch.conv", "linear_attn.{}_conv1d", "gated_delta"),
                     Same("mixer.norm", "attention_layer_norm"), Same("mlp.norm", "feedforward_layer_norm"))),
        aliases=(("input_layernorm", "attention_layer_norm"), ("post_attention_layernorm", "feedforward_layer_norm"))),
    about={"olmo-hybrid": About("OLMo 3 with Gated DeltaNet in three of four layers, the others without positions",
                                2026, "arXiv:2604.03444")},
    presets={
        # the 7B model
        "olmo-hybrid": FIXED | {
            "dim": 3840, "num_layers": 32, "attention.num_heads": 30, "hidden_dim": 11008, "vocab_size": 100352,
            "max_seq_len": 65536, "norm_eps": 1e-6, "position": "none", "gated_delta.num_heads": 30,
            "gated_delta.num_key_heads": 30, "gated_delta.key_dim": 96, "gated_delta.value_dim": 192,
            "gated_delta.conv_len": 4, "gated_delta.neg_eigenvalues": True,
            "layers": ("linear",) * 3 + ("full",),
            "kinds": {"linear": {"mixer": "gated_delta"}, "full": {"residual": "branch_post"}}},
    },
)
