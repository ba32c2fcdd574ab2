"""Jamba, Lieber et al. 2024, arXiv:2403.19887: Mamba, attention without positions in every eighth layer, experts."""

from dataclasses import replace
from typing import Any

from config import ModelConfig
from families.experts import TRAINING, expert_layer, expert_weights
from families.family import About, Family
from families.fields import Field, PerLayer, Theirs, llama_sizes, tied
from families.ssm import COMPUTING, StepRank, attention_out, group_fields, mamba_rules, times
from families.weights import HEAD, Same, renamed

NAMES = {"state_dim": "mamba_d_state", "conv_len": "mamba_d_conv", "bias": "mamba_proj_bias",
         "conv_bias": "mamba_conv_bias"}
DEFAULTS = {"state_dim": 16, "conv_len": 4, "bias": False, "conv_bias": True}
FIXED = {"norm": "rms", "position": "none", "activation": "silu", "mamba.norms": "scaled"}
MOE = {"moe.renormalise": False}  # acts only in layers with experts

# names that later hybrids have too
NORMS = {"mixer.norm": "input_layernorm", "mlp.norm": "pre_ff_layernorm"}
FEED_FORWARD = renamed({f"mlp.branch.{ours}": f"feed_forward.{theirs}_proj"
                        for ours, theirs in {"gate": "gate", "up": "up", "out": "down"}.items()})
WHOLE = renamed({"embed.tokens": "model.embed_tokens", "norm": "model.final_layernorm", HEAD: "lm_head"})


class Turns:
    """Which layers attend and which have experts: one in each period, at an offset; and the numbers of experts."""

    names = ("attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset", "num_experts",
             "num_experts_per_tok", "router_aux_loss_coef")
    defaults = dict(zip(names, (8, 4, 2, 1, 16, 2, 0.001), strict=True))

    def read(self, theirs: Theirs) -> dict[str, Any]:
        every, at, expert_every, expert_at, number, top_k, balance = (theirs[name] for name in self.names)
        layers = range(theirs["num_hidden_layers"])
        attends = [i % every == at for i in layers]
        routed = [number > 1 and i % expert_every == expert_at for i in layers]
        found: dict[str, Any] = {"mixer": PerLayer("attention" if own else "mamba" for own in attends),
                                 "mlp": PerLayer("moe" if own else "glu" for own in routed)}
        if any(routed):
            found |= MOE | {"moe.num_experts": number, "moe.top_k": top_k, "moe.balance_loss": balance * top_k}
        return found

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        own, written = expert_layer(cfg).moe, (
            *turns([layer.mixer == "attention" for layer in layers]), *turns([layer.mlp == "moe" for layer in layers]))
        experts = (own.num_experts, own.top_k, own.balance_loss / own.top_k) if any(
            layer.mlp == "moe" for layer in layers) else (1, 1, 0.0)
        return dict(zip(self.names, (*written, *experts), strict=True))


def turns(there: list[bool]) -> tuple[int, int]:
    """The distance between layers that have something, and the first; beyond the last layer if none has."""
    places = [i for i, own in enumerate(there) if own]
    first, second = (*places, len(there), len(there))[:2]
    return max(second - first, first + 1), first


FAMILY = Family(
    model_type="jamba", architecture="JambaForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(vocab=65536, hidden_dim=14336, kv=8, context=262144), Turns(),
            Field("mamba_expand", "mamba.expand", 2,
                  from_config=lambda cfg: times(cfg.mamba.inner_dim(cfg.dim), cfg.dim)),
            *group_fields("mamba", NAMES, DEFAULTS), StepRank("mamba_dt_rank"),
            Field("rms_norm_eps", ("norm_eps", "mamba.norm_eps"), 1e-6), tied(False)),
    only={"hidden_act": "silu"},
    harmless=(*TRAINING, *COMPUTING, "use_mamba_kernels", "num_logits_to_keep", "calc_logits_for_entire_prompt"),
    aliases={"num_local_experts": "num_experts"},
    weights=replace(
        expert_weights(Same("mlp.branch.router.logits", "feed_forward.router"), *mamba_rules("mamba"), attention_out(),
                       *FEED_FORWARD, room="feed_forward", norms=NORMS),
        whole=WHOLE),
    about={"jamba": About("Mamba, attention in every eighth layer, experts in every second", 2024, "arXiv:2403.19887")},
    presets={
        # version 0.1: 52B parameters, 12B active
        "jamba": FIXED | MOE | {
            "dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8, "hidden_dim": 14336,
            "vocab_size": 65536, "max_seq_len": 262144, "norm_eps": 1e-6, "mlp": "glu", "moe.num_experts": 16,
            "moe.top_k": 2, "moe.balance_loss": 0.002, "mamba.expand": 2.0, "mamba.state_dim": 16,
            "mamba.step_rank": 256, "mamba.conv_len": 4, "mamba.conv_bias": True, "mamba.bias": False,
            "mamba.norm_eps": 1e-6,
            "layers": ("mamba", "experts", "mamba", "experts", "attention", "experts", "mamba", "experts"),
            "kinds": {"mamba": {"mixer": "mamba"}, "experts": {"mixer": "mamba", "mlp": "moe"},
                      "attention": {"mixer": "attention"}}},
    },
)
