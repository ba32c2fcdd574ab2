"""Figures that several experiments read from a run or a configuration."""

from functools import cache

import pandas as pd

from config import ModelConfig
from model import Model
from modules.sizes import idle_parameters
from optim import roles
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


@cache
def num_multiplied(cfg: ModelConfig) -> int:
    """The parameters in matrices by which one token is multiplied, and in the head, also if it is the embedding."""
    with unfilled():
        model = Model(cfg)
        role_of = roles(model)
        used = {parameter for name, parameter in model.named_parameters() if role_of[name] in ("matrix", "head")}
        used.add(model.head.unembed.weight)
        return sum(parameter.numel() for parameter in used) - idle_parameters(model)
