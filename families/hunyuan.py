"""Hunyuan, Tencent 2025: Llama whose queries and keys are normalised after they are rotated."""

from typing import Any

from config import ModelConfig
from families.family import Family
from families.fields import ATTENTION_BIASES, Field, activation, head_dim, llama_sizes, tied
from families.layers import Rope
from families.weights import PRE, llama_weights


class FixedNtk(Rope):
    """Also rope_type=dynamic with an alpha, which makes theta larger at any length; the rest is not read."""

    idle = ("rope_type", "type", "alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")

    def flags(self, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("alpha") or given.get("rope_type", given.get("type")) != "dynamic":
            return super().flags(given)
        rest = {name: value for name, value in given.items() if name not in self.idle}
        return super().flags(rest) | {"rope.scaling": "ntk", "rope.factor": given["alpha"]}

    def parameters(self, cfg: ModelConfig) -> dict[str, Any]:
        if cfg.rope.scaling != "ntk":
            return super().parameters(cfg)
        return {"rope_type": "dynamic", "rope_theta": cfg.rope.theta, "alpha": cfg.rope.factor, "factor": 1.0}


QK_NORMS = {"mixer.branch.q_post_norm": "self_attn.query_layernorm",
            "mixer.branch.k_post_norm": "self_attn.key_layernorm"}

FAMILY = Family(
    model_type="hunyuan_v1_dense", architecture="HunYuanDenseV1ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "qk_norm": "head", "attention.qk_norm_after_rope": True},
    fields=(*llama_sizes(vocab=290943), head_dim(), activation("hidden_act", "silu"), tied(False), FixedNtk(),
            Field("rms_norm_eps", "norm_eps", 1e-5), Field("attention_bias", ATTENTION_BIASES, False)),
    harmless=("eod_token_id",),
    weights=llama_weights(PRE | QK_NORMS),
)
