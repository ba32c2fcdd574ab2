"""DeepSeek-V3, DeepSeek-AI 2024, arXiv:2412.19437: latent attention, and 256 experts that a bias balances."""

from dataclasses import dataclass
from math import log
from typing import Any

from config import ModelConfig
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
from families.family import About, Family, Part
from families.fields import Field, Implied, Theirs, activation, llama_sizes, scale_of, switch, tied
from families.llama import EPS
from families.weights import Same, WeightMap
from families.yarn import ShareRope, magnified

ROPE_WIDTH = Implied("head_dim", lambda theirs: theirs["qk_rope_head_dim"], lambda cfg: cfg.latent.rope_dim)
INTERLEAVED = switch("rope_interleave", "rope.layout", True, on="interleaved", off="half")
DERIVED = 12  # digits of what is computed back

def latent_sizes(*, q_rank: int = 1536, nope_dim: int = 128, v_dim: int = 128) -> tuple[Part, ...]:
    """The sizes of latent attention, with the defaults of a family."""
    return (
        Field("kv_lora_rank", "latent.kv_rank", 512), Field("q_lora_rank", "latent.q_rank", q_rank),
        Field("qk_rope_head_dim", "latent.rope_dim", 64), Field("qk_nope_head_dim", "latent.nope_dim", nope_dim),
        Field("v_head_dim", "latent.v_dim", v_dim),
        Field("attention_bias", ("latent.bias", "attention.out_bias"), False),
        Implied("num_key_value_heads", lambda theirs: theirs["num_attention_heads"],
                lambda cfg: cfg.attention.num_heads),
        Implied("qk_head_dim", lambda theirs: theirs["qk_rope_head_dim"] + theirs["qk_nope_head_dim"],
                lambda cfg: cfg.latent.head_dim))


@dataclass(frozen=True)
class LatentRope(ShareRope):
    """RoPE whose YaRN also scales the scores: by the square of 0.1 mscale_all_dim ln(factor) + 1."""

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return super().read(theirs) | self.scores(theirs)

    def scores(self, theirs: Theirs) -> dict[str, Any]:
        given = (theirs.get("rope_scaling") or {}) | (theirs.get("rope_parameters") or {})
        all_dim = given.get("mscale_all_dim")
        if not all_dim or given.get("rope_type", given.get("type", "default")) == "default":
            return {}
        width = theirs["qk_rope_head_dim"] + theirs["qk_nope_head_dim"]
        return {"attention.scale": width**-0.5 * magnified(given["factor"], all_dim) ** 2}

    def parameters(self, cfg: ModelConfig) -> dict[str, Any]:
        written = super().parameters(cfg)
        ratio = scale_of(cfg) * cfg.latent.head_dim**0.5
        if cfg.rope.scaling != "yarn" or abs(ratio - 1) < 1e-9:
            return written
        return written | {"mscale_all_dim": round((ratio**0.5 - 1) / (0.1 * log(cfg.rope.factor)), DERIVED)}


def latent_weights(*rules: Same, **options: Any) -> WeightMap:
    """The names of latent attention, experts, and an expert of all tokens."""
    names = {"q.down": "q_a_proj", "q.norm": "q_a_layernorm", "q.up": "q_b_proj", "kv_down": "kv_a_proj_with_mqa",
             "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj"}
    attention = [Same(f"mixer.branch.{ours}", f"self_attn.{theirs}") for ours, theirs in names.items()]
    shared = shared_expert(f"{options.get('room', 'mlp')}.shared_experts")
    return expert_weights(*attention, *shared, *rules, **options)


FAMILY = Family(
    model_type="deepseek_v3", architecture="DeepseekV3ForCausalLM",
    fixed={"mixer": "latent", "norm": "rms", "moe.scores": "sigmoid", "moe.balance_bias": True},
    fields=(*llama_sizes(vocab=129280, dim=7168, hidden_dim=None, layers=61, heads=128, context=4096, grouped=False),
            *latent_sizes(), ROPE_WIDTH, activation("hidden_act", "silu"), EPS, tied(False), LatentRope(),
            INTERLEAVED, FirstDense(18432, 2048),
            *experts("n_routed_experts", 256, 8), SharedExperts(1), *routed(8, 4, 2.5), renormalised(True)),
    only={"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1},
    harmless=(*TRAINING, "num_nextn_predict_layers", "num_mtp_layers", "ep_size", "aux_loss_alpha", "seq_aux"),
    aliases={"num_local_experts": "n_routed_experts"},
    weights=latent_weights(),
    about={"deepseek-v3": About("latent attention, 256 experts that a bias balances, one for all tokens", 2024,
                                "arXiv:2412.19437")},
    presets={
        # the 671B model with 37B active
        "deepseek-v3": {
            "mixer": "latent", "activation": "silu", "norm": "rms", "dim": 7168, "num_layers": 61, "norm_eps": 1e-6,
            "attention.num_heads": 128, "latent.kv_rank": 512, "latent.q_rank": 1536, "latent.nope_dim": 128,
            "latent.rope_dim": 64, "latent.v_dim": 128, "vocab_size": 129280, "max_seq_len": 163840,
            "rope.layout": "interleaved", "rope.scaling": "yarn", "rope.factor": 40.0, "rope.original_len": 4096,
            "rope.attention_factor": 1.0, "attention.scale": 192**-0.5 * magnified(40.0, 1.0) ** 2,
            "moe.num_experts": 256, "moe.top_k": 8, "moe.num_groups": 8, "moe.top_groups": 4, "moe.scale": 2.5,
            "moe.scores": "sigmoid", "moe.balance_bias": True, "moe.shared_dim": 2048, "hidden_dim": 18432,
            "layers": ("dense",) * 3 + ("experts",) * 58,
            "kinds": {"dense": {"mlp": "glu"}, "experts": {"mlp": "moe", "hidden_dim": 2048}}},
    },
)
