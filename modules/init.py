"""How matrices are initialised: the `init` and `out_init` flags."""

from torch import nn

from config import ModelConfig

OUT_STD = {"same": lambda std, cfg: std, "depth": lambda std, cfg: std * (2 * cfg.num_layers) ** -0.5,
           "zero": lambda std, cfg: 0.0}


def draw_matrices(model: nn.Module, cfg: ModelConfig) -> None:
    """Draw every matrix by `init`, those called `out` by `out_init`; embeddings with init_std; biases are zero."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=cfg.init_std)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=_std(path, module, cfg))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _std(path: str, linear: nn.Linear, cfg: ModelConfig) -> float:
    if path == "head.unembed" and cfg.head_zero_init:
        return 0.0
    inputs, outputs = linear.in_features, linear.out_features
    std = {"normal": cfg.init_std, "fan_in": inputs**-0.5, "xavier": (2 / (inputs + outputs)) ** 0.5}[cfg.init]
    return OUT_STD[cfg.out_init](std, cfg) if path.split(".")[-1] == "out" else std
