"""How matrices are initialised: the `init` and `out_init` flags."""

from collections.abc import Mapping

import torch
from torch import nn

from config import ModelConfig
from modules.mlps.grouped import StackedLinear
from modules.scaling import FIXED, Growth

HEAD = "head.unembed"

OUT_STD = {"same": lambda std, cfg: std, "depth": lambda std, cfg: std * (2 * cfg.num_layers) ** -0.5,
           "zero": lambda std, cfg: 0.0}


def draw_matrices(model: nn.Module, cfg: ModelConfig, growths: Mapping[str, Growth]) -> None:
    """Draw every matrix by `init`, those called `out` by `out_init`; embeddings with init_std; biases are zero.

    One with an attribute `init_scale` has so many times the standard deviation, an embedding with `init_std` that one.
    `growths` say how parameters grow with the width, by their names: with `scaling`, a matrix has the standard
    deviation that it has in a model as wide as base_dim, divided by the root of the growth of its inputs since, and the
    head has that one.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=getattr(module, "init_std", cfg.init_std))
        if isinstance(module, nn.Linear | StackedLinear):
            nn.init.normal_(module.weight, std=_std(path, module, cfg, growths))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if cfg.unit_weights:
        normalise_matrices(model)


@torch.no_grad()
def normalise_matrices(model: nn.Module) -> None:
    """Give the vectors of each matrix that meet the residual stream length 1: rows, or columns of those called `out`.

    Loshchilov et al. 2024, arXiv:2410.01131 (nGPT).
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | StackedLinear | nn.Embedding):
            axis = -2 if path.split(".")[-1] == "out" else -1
            module.weight.copy_(nn.functional.normalize(module.weight, dim=axis))


def _std(
    path: str, linear: nn.Linear | StackedLinear, cfg: ModelConfig, growths: Mapping[str, Growth],
) -> float:
    if path == HEAD and cfg.head_zero_init:
        return 0.0
    m, power = cfg.width_ratio, growths.get(f"{path}.weight", FIXED).powers.inputs
    narrower = m ** (0.5 * power * ((cfg.init == "fan_in") - (path != HEAD)))
    cfg = cfg.encoder if path.startswith("encoder.") else cfg
    inputs, outputs = linear.in_features, linear.out_features
    std = {"normal": cfg.init_std, "fan_in": inputs**-0.5, "xavier": (2 / (inputs + outputs)) ** 0.5}[cfg.init]
    std = std * getattr(linear, "init_scale", 1.0) * narrower
    return OUT_STD[cfg.out_init](std, cfg) if path.split(".")[-1] == "out" else std
