"""Youtu-LLM, Tencent 2026: Llama with DeepSeek-V3's latent attention."""

from families.deepseek_v3 import INTERLEAVED, ROPE_WIDTH, LatentRope, latent_sizes, latent_weights
from families.family import Family
from families.fields import activation, llama_sizes, tied
from families.llama import EPS

FAMILY = Family(
    model_type="youtu", architecture="YoutuForCausalLM",
    fixed={"mixer": "latent", "mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=128256, dim=2048, hidden_dim=6144, heads=16, context=131072, grouped=False),
            *latent_sizes(), ROPE_WIDTH, activation("hidden_act", "silu"), EPS, tied(True), LatentRope(), INTERLEAVED),
    harmless=("embedding_initializer_range",),
    weights=latent_weights(),
)
