"""DeepSeek-V3.2, DeepSeek-AI 2025, arXiv:2512.02556: DeepSeek-V3 with an indexer that chooses keys for its queries."""

from families.deepseek_v3 import ROPE_WIDTH, LatentRope, latent_sizes, latent_weights
from families.experts import TRAINING, ListedLayers, SharedExperts, experts, renormalised, routed
from families.family import Family
from families.fields import Field, Implied, activation, llama_sizes, tied
from families.llama import EPS
from families.weights import renamed


def number_of_keys(given: int | None) -> int:
    if given is None:
        raise ValueError("index_topk=None, attention without an indexer, is not known here")
    return given


INDEXER = (
    Field("index_topk", "indexer.top_k", 2048, number_of_keys), Field("index_n_heads", "indexer.num_heads", 64),
    Field("index_head_dim", "indexer.head_dim", 128),
    Implied("layer_types", lambda theirs: ["indexed_attention"] * theirs["num_hidden_layers"],
            lambda cfg: ["indexed_attention"] * cfg.num_layers))
NAMES = renamed({f"mixer.branch.indexer.{ours}": f"self_attn.indexer.{theirs}" for ours, theirs in {
    "q": "wq_b", "k": "wk", "k_norm": "k_norm", "weigh": "weights_proj"}.items()})

FAMILY = Family(
    model_type="deepseek_v32", architecture="DeepseekV32ForCausalLM",
    fixed={"mixer": "latent", "norm": "rms", "moe.scores": "sigmoid", "moe.balance_bias": True,
           "rope.layout": "interleaved"},
    fields=(*llama_sizes(vocab=129280, dim=7168, hidden_dim=None, layers=61, heads=128, context=163840, grouped=False),
            *latent_sizes(), ROPE_WIDTH, *INDEXER, activation("hidden_act", "silu"), EPS, tied(False), LatentRope(),
            ListedLayers(18432, 2048, first=3, first_name="first_k_dense_replace"),
            *experts("n_routed_experts", 256, 8), SharedExperts(1), *routed(8, 4, 2.5), renormalised(True)),
    only={"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1},
    harmless=(*TRAINING, "num_nextn_predict_layers", "num_mtp_layers", "ep_size", "aux_loss_alpha", "seq_aux"),
    aliases={"num_local_experts": "n_routed_experts", "num_experts": "n_routed_experts"},
    weights=latent_weights(*NAMES),
)
