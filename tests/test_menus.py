"""The words that config.py lists are those of the menus, where the parts that they name stand."""

from typing import get_args

import pytest

import config
from modules.block import RESIDUALS
from modules.init import OUT_STD
from modules.mixers import MIXERS
from modules.mlp import ACTIVATIONS, MLPS
from modules.norm import NORMS
from modules.position import POSITIONS, ROTARY
from optim import OPTIMIZERS
from optimizing.schedules import SCHEDULES
from tokenizer import TOKENIZERS


@pytest.mark.parametrize(("words", "menu"), [
    (config.Mixer, MIXERS), (config.Mlp, MLPS), (config.Activation, ACTIVATIONS), (config.Norm, NORMS),
    (config.Residual, RESIDUALS), (config.Position, POSITIONS), (config.RopeLayout, ROTARY),
    (config.OutInit, OUT_STD), (config.TokenizerKind, TOKENIZERS), (config.Optimizer, OPTIMIZERS),
    (config.Schedule, SCHEDULES),
], ids=lambda value: "" if isinstance(value, dict) else "-".join(get_args(value)))
def test_the_words_of_config_are_those_of_the_menu(words, menu):
    assert set(get_args(words)) - set(menu) == set(), "in config.py, but in no menu"
    assert set(menu) - set(get_args(words)) == set(), "in a menu, but not in config.py"
