"""GLM-4.7 Flash, Z.ai 2026: DeepSeek-V3 at a small size, its sparse layers listed one by one."""

from families.deepseek_v3 import INTERLEAVED, LatentRope, latent_sizes, latent_weights
from families.experts import TRAINING, ListedLayers, SharedExperts, experts, renormalised, routed
from families.family import Family
from families.fields import activation, llama_sizes, tied
from families.glm4_moe import EPS, MORE_TOKENS, ROUTED

FAMILY = Family(
    model_type="glm4_moe_lite", architecture="Glm4MoeLiteForCausalLM",
    fixed=ROUTED | {"mixer": "latent"},
    fields=(*llama_sizes(vocab=154880, dim=2048, hidden_dim=None, layers=47, heads=20, context=202752, grouped=False),
            *latent_sizes(q_rank=768, nope_dim=192, v_dim=256), activation("hidden_act", "silu"), EPS, tied(False),
            LatentRope(), INTERLEAVED, ListedLayers(10240, 1536), *experts("n_routed_experts", 64, 4),
            SharedExperts(1), *routed(1, 1, 1.8), renormalised(True)),
    harmless=(*TRAINING, *MORE_TOKENS),
    aliases={"num_local_experts": "n_routed_experts"},
    weights=latent_weights(),
)
