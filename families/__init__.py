"""Families of published models, a file for each: presets, config.json and weights, from and to Hugging Face.

`FAMILIES` has them by the model_type of their config.json. Of several that can express a run the first is the one that
it is exported as.
"""

from families import gemma2, gpt2, llama, qwen3
from families.family import Family

FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in (gpt2, llama, qwen3, gemma2)}
