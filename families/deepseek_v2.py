"""DeepSeek-V2, DeepSeek-AI 2024, arXiv:2405.04434: latent attention, experts by a softmax, two for all tokens."""

from typing import Any

from config import ModelConfig
from families.deepseek_v3 import ROPE_WIDTH, LatentRope, latent_sizes, latent_weights
from families.experts import TRAINING, FirstDense, SharedExperts, expert_layer, experts
from families.family import About, Family
from families.fields import Field, Theirs, activation, llama_sizes, tied
from families.llama import EPS


class Groups:
    """topk_method: all experts, or those of the topk_group best of n_group groups."""

    names = ("topk_method", "n_group", "topk_group")
    defaults = {"topk_method": "greedy"}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        if theirs["topk_method"] == "greedy":
            return {"moe.num_groups": 1, "moe.top_groups": 1}
        if theirs["topk_method"] != "group_limited_greedy":
            raise ValueError(f"topk_method={theirs['topk_method']!r} is not known here")
        return {"moe.num_groups": theirs["n_group"], "moe.top_groups": theirs["topk_group"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = expert_layer(cfg).moe
        return {"topk_method": "greedy" if own.num_groups == 1 else "group_limited_greedy", "n_group": own.num_groups,
                "topk_group": own.top_groups}


FAMILY = Family(
    model_type="deepseek_v2", architecture="DeepseekV2ForCausalLM",
    fixed={"mixer": "latent", "norm": "rms", "rope.layout": "interleaved", "moe.renormalise": False},
    fields=(*llama_sizes(vocab=102400, dim=4096, hidden_dim=None, layers=32, heads=32, context=2048, grouped=False),
            *latent_sizes(), ROPE_WIDTH, activation("hidden_act", "silu"), EPS, tied(False), LatentRope(),
            FirstDense(11008, 1407, first=0), *experts("n_routed_experts", 64, 2), SharedExperts(2), Groups(),
            Field("routed_scaling_factor", "moe.scale", 1.0)),
    only={"scoring_func": "softmax", "moe_layer_freq": 1},
    harmless=(*TRAINING, "norm_topk_prob", "ep_size", "aux_loss_alpha", "seq_aux"),
    aliases={"num_experts": "n_routed_experts", "num_local_experts": "n_routed_experts"},
    weights=latent_weights(),
    about={"deepseek-v2": About("latent attention, 160 experts in groups, two for all tokens", 2024,
                                "arXiv:2405.04434")},
    presets={
        # the 236B model with 21B active
        "deepseek-v2": {
            "mixer": "latent", "activation": "silu", "norm": "rms", "dim": 5120, "num_layers": 60, "norm_eps": 1e-6,
            "attention.num_heads": 128, "latent.kv_rank": 512, "latent.q_rank": 1536, "latent.nope_dim": 128,
            "latent.rope_dim": 64, "latent.v_dim": 128, "vocab_size": 102400, "max_seq_len": 4096,
            "rope.layout": "interleaved", "moe.num_experts": 160, "moe.top_k": 6, "moe.num_groups": 8,
            "moe.top_groups": 3, "moe.scale": 16.0, "moe.renormalise": False, "moe.shared_dim": 3072,
            "moe.balance_loss": 0.003, "hidden_dim": 12288, "layers": ("dense",) + ("experts",) * 59,
            "kinds": {"dense": {"mlp": "glu"}, "experts": {"mlp": "moe", "hidden_dim": 1536}}},
    },
)
