"""The words that config.py lists are those of the menus, where the parts that they name stand."""

from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest

import config
from configuration.recurrent.linear import FeatureMap
from modules.ahead import AHEAD
from modules.init import OUT_STD
from modules.memory import MEMORIES
from modules.mixers import MIXERS
from modules.mixers.cross import CROSS
from modules.mixers.linear import FEATURE_MAPS
from modules.mlps import MLPS
from modules.mlps.dense import ACTIVATIONS
from modules.mlps.moe import ROUTERS
from modules.norm import NORMS
from modules.position import POSITIONS
from modules.residuals import RESIDUALS
from modules.rope import ROTARY, SCALINGS
from modules.stacks import STACKS
from objective import OBJECTIVES
from optim import OPTIMIZERS
from optimizing.schedules import SCHEDULES
from probes import PROBES
from tokenizer import TOKENIZERS


@pytest.mark.parametrize(("words", "menu"), [
    (config.Mixer, MIXERS), (config.Cross, CROSS), (config.Mlp, MLPS), (config.ExpertScores, ROUTERS),
    (config.Activation, ACTIVATIONS),
    (config.Norm, NORMS), (config.Residual, RESIDUALS), (config.Position, POSITIONS), (config.RopeLayout, ROTARY),
    (config.RopeScaling, SCALINGS), (config.Stack, STACKS), (config.Memory, MEMORIES), (config.Ahead, AHEAD),
    (config.OutInit, OUT_STD), (config.TokenizerKind, TOKENIZERS), (config.Optimizer, OPTIMIZERS),
    (config.Schedule, SCHEDULES), (config.Probe, PROBES), (FeatureMap, FEATURE_MAPS),
], ids=lambda value: "" if isinstance(value, dict) else "-".join(get_args(value)))
def test_the_words_of_config_are_those_of_the_menu(words, menu):
    assert set(get_args(words)) - set(menu) == set(), "in config.py, but in no menu"
    assert set(menu) - set(get_args(words)) == set(), "in a menu, but not in config.py"


def test_a_group_of_the_models_flags_is_named_like_the_word_of_its_part():
    words = {*MIXERS, *MEMORIES, *MLPS, *NORMS, *RESIDUALS, *POSITIONS, *STACKS, "indexer"}  # that of any heads
    hints = get_type_hints(config.ModelConfig)
    groups = {field.name for field in fields(config.ModelConfig) if is_dataclass(hints[field.name])}
    assert groups <= words, f"{', '.join(groups - words)}: a group acts in layers that have the part of its name"


def test_the_objectives_of_config_are_those_of_the_menu():
    assert set(get_args(config.ObjectiveKind)) == set(OBJECTIVES)
