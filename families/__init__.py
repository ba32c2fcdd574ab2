"""Families of published models, a file for each: config.json and weights, from and to Hugging Face; most have presets.

`FAMILIES` has them by the model_type of their config.json. Of several that can express a run the first is the one that
it is exported as.
"""

from importlib import import_module

from families.family import Family

FILES = (  # in this folder
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo", "olmo2", "granite", "smollm3",
    "cohere2", "exaone4", "glm4", "arcee", "nemotron", "apertus", "starcoder2", "phi", "gptj", "opt", "bloom", "mpt",
    "falcon", "neox", "cohere", "stablelm", "nanochat", "olmo3", "diffllama", "mixtral", "qwen3_moe", "olmoe",
    "gpt_oss", "deepseek_v3", "deepseek_v2", "llama4", "recurrent_gemma",
    "xlstm", "minimax", "lfm2",
    "qwen3_next", "olmo_hybrid", "kimi_linear",
    "mamba", "mamba2", "jamba", "bamba", "nemotron_h", "falcon_h1",
    # without presets
    "gpt", "gpt_neo", "gpt_bigcode", "codegen", "biogpt", "persimmon", "phi3", "glm", "ernie4_5", "helium",
    "hunyuan", "ministral", "internlm3", "iquestcoder", "seed_oss", "jais2", "vaultgemma", "bitnet", "cwm",
    "hyperclovax", "granite_swa", "qwen2_moe", "granitemoe", "ministral3", "phimoe", "dots1", "glm4_moe",
    "glm4_moe_lite", "deepseek_v32", "solar_open", "exaone_moe", "ernie4_5_moe", "minimax_m2", "hunyuan_v1_moe",
    "hy_v3", "flex_olmo", "granitemoeshared", "granitemoe_swa", "mellum", "afmoe", "flint", "cohere2_moe", "kolibri1",
    "xglm", "ctrl", "gpt_neox_japanese", "modernbert_decoder", "falcon_mamba",
)
ENCODER_DECODER_FILES = ("t5",)


def _of_files(names: tuple[str, ...]) -> dict[str, Family]:
    return {family.model_type: family for family in (import_module(f"families.{name}").FAMILY for name in names)}


FAMILIES: dict[str, Family] = _of_files(FILES)
# of an encoder and a decoder: presets, but no runs to import or export, because no train.objective gives a source
ENCODER_DECODERS: dict[str, Family] = _of_files(ENCODER_DECODER_FILES)
