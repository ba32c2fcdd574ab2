"""VaultGemma, Sinha et al. 2025, arXiv:2510.15001: Gemma 2 with norms before its branches only."""

from families.family import Family
from families.gemma2 import FAMILY as GEMMA2
from families.gemma2 import GEMMA
from families.weights import llama_weights

FAMILY = Family(
    model_type="vaultgemma", architecture="VaultGemmaForCausalLM", fixed=GEMMA, fields=GEMMA2.fields,
    harmless=("hidden_act", "cache_implementation"),
    weights=llama_weights({"mixer.norm": "input_layernorm", "mlp.norm": "pre_feedforward_layernorm"}),
)
