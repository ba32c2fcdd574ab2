"""What moves the weights: parameter groups by rule, optimizers, learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from config import TrainConfig


def group_of(name: str, parameter: Tensor) -> str:
    """Which group a parameter belongs to, by where it stands and how many axes it has."""
    if name.startswith("embed.") and parameter.dim() == 2:
        return "embedding"
    if name == "head.unembed.weight":
        return "head"
    return "matrices" if parameter.dim() == 2 else "vectors"


def parameter_groups(model: nn.Module, cfg: TrainConfig) -> dict[str, dict[str, Any]]:
    """Every parameter once, shared ones with the embedding: by group, with its rate and its decay.

    Vectors (norms, biases) are not decayed: pulling a scale to zero regularises nothing.
    """
    rates = {"embedding": cfg.embed_lr_mult, "head": cfg.head_lr_mult, "matrices": 1.0,
             "vectors": cfg.vector_lr_mult}
    groups: dict[str, dict[str, Any]] = {
        group: {"params": [], "lr": cfg.lr * rate, "lr_mult": rate, "name": group,
                "weight_decay": 0.0 if group == "vectors" else cfg.weight_decay}
        for group, rate in rates.items()
    }
    for name, parameter in model.named_parameters():
        groups[group_of(name, parameter)]["params"].append(parameter)
    return {group: options for group, options in groups.items() if options["params"]}


class Optimizers:
    """One or more torch optimizers that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_lr(self, lr: float) -> None:
        """Give each group `lr` times its multiplier."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_mult"]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Iterable[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def make_adamw(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """AdamW on everything. Loshchilov & Hutter 2017, arXiv:1711.05101."""
    return Optimizers(_adamw(list(parameter_groups(model, cfg).values()), cfg))


def make_muon(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Muon on the matrices of the blocks, AdamW on embedding, head and vectors.

    Jordan et al. 2024; steps scaled to AdamW's size, so that one rate serves both: Liu et al. 2025,
    arXiv:2502.16982.
    """
    groups = parameter_groups(model, cfg)
    matrices = groups.pop("matrices", None)
    parts = [] if matrices is None else [torch.optim.Muon(
        [matrices], momentum=cfg.momentum, adjust_lr_fn="match_rms_adamw", weight_decay=cfg.weight_decay)]
    return Optimizers(*parts, _adamw(list(groups.values()), cfg))


def _adamw(groups: list[dict[str, Any]], cfg: TrainConfig) -> torch.optim.AdamW:
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, betas=(cfg.beta1, cfg.beta2), eps=cfg.adam_eps, fused=fused)


OPTIMIZERS = {"adamw": make_adamw, "muon": make_muon}


def make_optimizer(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    return OPTIMIZERS[cfg.optimizer](model, cfg)


# A schedule maps the progress after the warmup, from 0 to 1, to the share of the peak rate. `steps`
# after the warmup and `epochs` are there for the one that counts them.
def constant(progress: float, cfg: TrainConfig, **_) -> float:
    return 1.0


def linear(progress: float, cfg: TrainConfig, **_) -> float:
    return 1 - (1 - cfg.min_lr_ratio) * progress


def cosine(progress: float, cfg: TrainConfig, **_) -> float:
    """Loshchilov & Hutter 2016, arXiv:1608.03983, without restarts."""
    return cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def wsd(progress: float, cfg: TrainConfig, **_) -> float:
    """Warmup, stable, decay: flat until the last `decay_fraction`, then linear. arXiv:2404.06395."""
    if progress <= 1 - cfg.decay_fraction:
        return 1.0
    return linear((progress - 1 + cfg.decay_fraction) / cfg.decay_fraction, cfg)


def step(progress: float, cfg: TrainConfig, *, steps: int, epochs: float) -> float:
    """Times `step_gamma` every `step_size` epochs or steps."""
    count = steps if cfg.step_unit == "steps" else math.floor(epochs)
    return cfg.step_gamma ** (count // cfg.step_size)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "wsd": wsd, "step": step}


def warmup_steps(cfg: TrainConfig) -> int:
    return cfg.steps // 50 if cfg.warmup_steps is None else cfg.warmup_steps


def learning_rate(number: int, cfg: TrainConfig, *, epochs: float = 0.0) -> float:
    """The rate of step `number`, counted from 0, when `epochs` passes over the data are done."""
    warmup = warmup_steps(cfg)
    if number < warmup:
        return cfg.lr * (number + 1) / warmup
    progress = min(1.0, (number - warmup) / max(1, cfg.steps - warmup))
    return cfg.lr * SCHEDULES[cfg.schedule](progress, cfg, steps=number - warmup, epochs=epochs)
