"""Families of published models, a file for each: presets, config.json and weights, from and to Hugging Face.

`FAMILIES` has them by the model_type of their config.json. Of several that can express a run the first is the one that
it is exported as.
"""

from families import (
    apertus,
    arcee,
    bloom,
    cohere,
    cohere2,
    diffllama,
    exaone4,
    falcon,
    gemma,
    gemma2,
    gemma3,
    glm4,
    gpt2,
    gptj,
    granite,
    llama,
    mistral,
    mpt,
    nanochat,
    nemotron,
    neox,
    olmo,
    olmo2,
    olmo3,
    opt,
    phi,
    qwen2,
    qwen3,
    smollm3,
    stablelm,
    starcoder2,
)
from families.family import Family

FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in (
    gpt2, llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3, olmo, olmo2, granite, smollm3, cohere2, exaone4, glm4,
    arcee, nemotron, apertus, starcoder2, phi, gptj, opt, bloom, mpt, falcon, neox, cohere, stablelm, nanochat, olmo3,
    diffllama)}
