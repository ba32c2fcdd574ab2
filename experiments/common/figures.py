"""Figures that several experiments read from a run or a configuration."""

from functools import cache

import pandas as pd

from config import ModelConfig
from model import Model
from modules.sizes import idle_parameters
from tools import unfilled


def last_value(log: pd.DataFrame, column: str) -> float:
    """The last measured value of a column."""
    return float(log[column].dropna().iloc[-1])


@cache
def num_parameters(cfg: ModelConfig) -> int:
    """The parameters of a model, shared ones counted once."""
    with unfilled():
        return Model(cfg).num_parameters()


@cache
def num_active_parameters(cfg: ModelConfig) -> int:
    """The parameters that one token uses."""
    with unfilled():
        model = Model(cfg)
        return model.num_parameters() - idle_parameters(model)
