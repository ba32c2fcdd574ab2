"""Optimizers, their parameter groups by role, and averages of weights.

`python optim.py [preset] [--train.flag value ...]` draws the learning rate and the batch size of every step.
"""

import sys

if __name__ == "__main__":  # before the imports: help and mistakes need no torch, whose import takes seconds
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()
    from optimizing.command import parse

    command = parse(sys.argv[1:])

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config import Config, TrainConfig
from configuration.command_line import fail
from configuration.scaling import check_scaled_training
from modules.across import is_sharded
from optimizing.command import parse
from optimizing.scaling import RULES, Factors
from optimizing.schedules import draw_schedule, schedule_text
from optimizing.stacked_muon import BatchedMuon, StackedMuon
from optimizing.wrappers import AveragingOptimizer, MovingAverage, Optimizers

__all__ = ["OPTIMIZERS", "AveragingOptimizer", "MovingAverage", "Optimizers", "make_optimizer", "parameter_groups",
           "roles"]


def roles(model: nn.Module) -> dict[str, str]:
    """The role of each parameter for the optimizer, by its name: "matrix", "embedding", "head" or "vector".

    nn.Linear.weight is a matrix and nn.Embedding.weight an embedding; all others are vectors, such as biases and the
    scales of norms. A part overrides this for its own parameters in `roles`: {"up": "matrix"} for stacked experts,
    which Muon takes as a batch. A shared parameter has the role that the first of its parts gives it.
    """
    found: dict[Tensor, str] = {}
    names = dict(model.named_parameters())
    own = {f"{path}.{name}".lstrip("."): role for path, part in model.named_modules()
           for name, role in getattr(part, "roles", {}).items()}
    for path, part in model.named_modules():
        usual = "matrix" if isinstance(part, nn.Linear) else "embedding" if isinstance(part, nn.Embedding) else "vector"
        for name, parameter in part.named_parameters(recurse=False):
            role = usual if name == "weight" else "vector"
            found.setdefault(parameter, own.get(f"{path}.{name}".lstrip("."), role))
    return {name: found[parameter] for name, parameter in names.items()}


GROUPS = {"embedding": "embedding", "head": "head", "matrix": "matrices", "vector": "vectors"}  # role -> group


def parameter_groups(model: nn.Module, cfg: TrainConfig) -> dict[str, dict[str, Any]]:
    """Every parameter once, by group, with the group's learning rate and weight decay.

    Vectors (norms, biases) are not decayed: pulling a scale to zero regularises nothing.
    """
    rates = {"embedding": cfg.of_optimizer("embed_lr_mult"), "head": cfg.head_lr_mult, "matrices": 1.0,
             "vectors": cfg.vector_lr_mult}
    groups: dict[str, dict[str, Any]] = {
        group: {"params": [], "lr": cfg.lr * rate, "lr_mult": rate, "name": group,
                "weight_decay": 0.0 if group == "vectors" else cfg.decay}
        for group, rate in rates.items()
    }
    role_of = roles(model)
    for name, parameter in model.named_parameters():
        groups[GROUPS[role_of[name]]]["params"].append(parameter)
    return {group: options for group, options in groups.items() if options["params"]}


def scaled_groups(model: nn.Module, cfg: TrainConfig) -> list[dict[str, Any]]:
    """The groups of parameters; with model.scaling each in parts, by the factors of optimizing/scaling.py.

    Raises ValueError for an optimizer whose rates are not known to transfer.
    """
    groups = list(parameter_groups(model, cfg).values())
    if not (growths := getattr(model, "growths", {})):
        return groups
    check_scaled_training(model.cfg, cfg)
    names, roles_of = {p: name for name, p in model.named_parameters()}, roles(model)
    found: dict[tuple[str, Factors], dict[str, Any]] = {}
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            factors = RULES[cfg.optimizer](roles_of[name], growths[name], model.cfg.width_ratio)
            part = found.setdefault((group["name"], factors), group | {
                "params": [], "lr": group["lr"] * factors.lr, "lr_mult": group["lr_mult"] * factors.lr,
                "weight_decay": group["weight_decay"] * factors.decay})
            part["params"].append(parameter)
    return list(found.values())


def adam_eps(model: nn.Module, cfg: TrainConfig) -> float:
    """What Adam adds to its denominator: with model.scaling less, as gradients are. arXiv:2505.01618."""
    return cfg.adam_eps / (model.cfg.width_ratio * model.cfg.depth_ratio) if hasattr(model, "growths") else cfg.adam_eps


def make_adamw(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """AdamW on everything. Loshchilov & Hutter 2017, arXiv:1711.05101."""
    return Optimizers(_adamw(scaled_groups(model, cfg), model, cfg))


def make_muon(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Muon on the matrices of the blocks, AdamW on embedding, head and vectors.

    Jordan et al. 2024; steps scaled to AdamW's size, so that one rate serves both: Liu et al. 2025,
    arXiv:2502.16982.
    """
    def make(matrices: list[dict[str, Any]]) -> Iterator[torch.optim.Optimizer]:
        flat, stacked = (list(_only(matrices, stacked=above)) for above in (False, True))
        if flat:
            yield BatchedMuon(flat, momentum=cfg.momentum, weight_decay=cfg.decay)
        if stacked:
            yield StackedMuon(stacked, momentum=cfg.momentum, weight_decay=cfg.decay)

    return _on_matrices(model, cfg, make)


def make_adam(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Adam on everything, its weight decay in the gradient. Kingma & Ba 2014, arXiv:1412.6980."""
    groups = scaled_groups(model, cfg)
    return Optimizers(torch.optim.Adam(groups, betas=cfg.betas, eps=adam_eps(model, cfg), fused=_fused(groups)))


def make_sgd(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """SGD with Nesterov's momentum on everything, its weight decay in the gradient."""
    groups = scaled_groups(model, cfg)
    fused = _fused(groups) and not is_sharded(groups[0]["params"][0])  # which DTensor does not know
    return Optimizers(torch.optim.SGD(groups, momentum=cfg.momentum, nesterov=cfg.momentum > 0, fused=fused))


def make_lion(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Lion on everything: steps of one size, by the sign. Chen et al. 2023, arXiv:2302.06675."""
    from pytorch_optimizer import Lion  # imported here and below because it takes a second

    foreach = False if any(map(is_sharded, model.parameters())) else None  # which torch 2.11 cannot do with shards
    return Optimizers(Lion(scaled_groups(model, cfg), betas=cfg.betas, foreach=foreach))


def make_adafactor(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Adafactor on everything: second moments by row and column, steps relative to the weights' size.

    Shazeer & Stern 2018, arXiv:1804.04235. The rate is at most one over the root of the step.
    """
    return Optimizers(torch.optim.Adafactor(scaled_groups(model, cfg)))


def make_soap(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """SOAP on the matrices of the blocks, AdamW on embedding, head and vectors.

    Adam in the slowly turning bases of Shampoo: Vyas et al. 2024, arXiv:2409.11321. Its first step only
    initialises the bases.
    """
    from pytorch_optimizer import SOAP

    return _on_matrices(model, cfg, lambda matrices: [SOAP(
        matrices, betas=cfg.betas, eps=cfg.adam_eps, precondition_frequency=cfg.precondition_every)])


def make_schedule_free(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    """Schedule-free AdamW on everything; evaluated with averaged weights. Defazio et al. 2024, arXiv:2405.15682."""
    from pytorch_optimizer import ScheduleFreeAdamW

    return AveragingOptimizer(ScheduleFreeAdamW(
        scaled_groups(model, cfg), betas=cfg.betas, eps=adam_eps(model, cfg)))


def _only(groups: list[dict[str, Any]], *, stacked: bool) -> Iterator[dict[str, Any]]:
    """The groups with those of their parameters that are stacks of matrices or sharded, or the others."""
    for group in groups:
        if params := [p for p in group["params"] if (p.dim() > 2 or is_sharded(p)) is stacked]:
            yield group | {"params": params}


def _on_matrices(
    model: nn.Module, cfg: TrainConfig, make: Callable[[list[dict[str, Any]]], Iterable[torch.optim.Optimizer]]
) -> Optimizers:
    """Optimizers for the matrices of the blocks, if there are any, and AdamW for the rest."""
    groups = scaled_groups(model, cfg)
    matrices = [group for group in groups if group["name"] == "matrices"]
    parts = make(matrices) if matrices else []
    return Optimizers(*parts, _adamw([group for group in groups if group["name"] != "matrices"], model, cfg))


def _adamw(groups: list[dict[str, Any]], model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, betas=cfg.betas, eps=adam_eps(model, cfg), fused=_fused(groups))


def _fused(groups: list[dict[str, Any]]) -> bool:
    return groups[0]["params"][0].device.type in ("cpu", "cuda")


OPTIMIZERS = {"adamw": make_adamw, "muon": make_muon, "adam": make_adam, "sgd": make_sgd, "lion": make_lion,
              "adafactor": make_adafactor, "soap": make_soap, "schedule_free": make_schedule_free}


def make_optimizer(model: nn.Module, cfg: TrainConfig) -> Optimizers:
    return OPTIMIZERS[cfg.optimizer](model, cfg)


def main(command: tuple[Config, Path] | None = None) -> None:
    """Draw the schedule of the command line, or of a command that is already parsed."""
    cfg, path = command or parse(sys.argv[1:])
    try:
        print(schedule_text(cfg))
        draw_schedule(cfg).savefig(path, dpi=130, format="png")
    except OSError as error:
        fail(f"--out {path} cannot be written: {error.strerror or error}")
    except ValueError as error:
        fail(error)
    print(f"picture: {path}")


if __name__ == "__main__":
    garbage.begin()
    main(command)
