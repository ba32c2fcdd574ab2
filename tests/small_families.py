"""The families at toy size: configurations, and models of Hugging Face with random weights."""

import transformers
from helpers import randomise
from torch import nn

from config import ModelConfig, override
from families import FAMILIES
from families.family import Family
from presets import load_preset, tiny

VOCAB = 61
FAMILY_OF = {preset: family for family in FAMILIES.values() for preset in family.presets}
# forms that no preset has, with the family they are of
WITHOUT_PRESET = {"defaults": {"mlp": "mlp", "activation": "relu2", "norm": "rms", "qk_norm": "head"},
                  "head-norms": {"norm": "layer", "norm_eps": 1e-5, "norm_bias": True, "qk_norm": "each_head",
                                 "attention.qk_norm_bias": False, "rope.fraction": 0.25}}
FORM_OF = {"defaults": "apertus", "head-norms": "stablelm"}


def toy(preset: str, *, vocab_size: int = VOCAB) -> ModelConfig:
    """A preset at toy size, with a layer more than a pattern has, and without dropout."""
    if preset in WITHOUT_PRESET:
        cfg = override(load_preset("llama2"), {"model": WITHOUT_PRESET[preset]})
    else:
        cfg = load_preset(preset)
    cfg = tiny(cfg, vocab_size=vocab_size, max_seq_len=32).model
    off = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout"), 0.0)
    off |= {} if cfg.attention.scale is None else {"attention.scale": 1 / 3}  # that of narrower heads
    off |= {} if cfg.attention.clip is None else {"attention.clip": 0.4}  # below the largest values
    off |= {"rope.original_len": 8, "rope.theta": 50.0} if cfg.rope.scaling == "llama3" else {}  # shorter than a text
    return override(cfg, off | {"num_layers": len(cfg.layers) + 1})


ALL = [*FAMILY_OF, *WITHOUT_PRESET]
TOYS = list({toy(preset): preset for preset in reversed(ALL)}.values())[::-1]  # those of several sizes are equal


def family_of(preset: str) -> Family:
    return FAMILY_OF.get(preset) or FAMILIES[FORM_OF[preset]]


def build_theirs(config: dict) -> nn.Module:
    """Their model of a config.json, every parameter and buffer that is saved random."""
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager")
    return randomise(theirs).eval()
