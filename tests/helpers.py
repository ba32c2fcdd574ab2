"""Small models for the tests, and the one table of tolerances."""

from typing import Any

import torch
from torch import Tensor, nn

from config import ModelConfig
from model import Model

# atol and rtol of torch.testing.assert_close, float32 unless the name says otherwise
TOLERANCES = {
    "same": {"atol": 1e-5, "rtol": 1e-5},  # one computation in another order, or against a formula
    "parity": {"atol": 2e-5, "rtol": 1e-5},  # logits of other people's code
    "parity_grad": {"atol": 2e-5, "rtol": 1e-4},  # gradients of other people's code
    "bfloat16": {"atol": 0.05, "rtol": 0.05},
}
SMALL = {"dim": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 37, "max_seq_len": 16,
         "out_init": "same", "qk_norm": "none", "pointer": False}


def assert_close(actual: Any, expected: Any, tolerance: str) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[tolerance])


def small_config(**flags: Any) -> ModelConfig:
    """A model whose sizes differ from one another, so that mixed-up axes fail; `flags` win."""
    return ModelConfig(**SMALL | flags)


def randomise(model: nn.Module, *, std: float = 0.2, seed: int = 0) -> nn.Module:
    """Draw every parameter anew: zeros and ones of the init would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
    return model


def small_model(**flags: Any) -> Model:
    """A small model with random weights, in eval mode."""
    return randomise(Model(small_config(**flags))).eval()


def small_tokens(b: int = 2, t: int = 13, *, vocab_size: int = 37, seed: int = 0) -> Tensor:
    """Random ids (b, t)."""
    return torch.randint(vocab_size, (b, t), generator=torch.Generator().manual_seed(seed))
