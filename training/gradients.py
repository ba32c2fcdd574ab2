"""Measurements of the gradient: its norm in each layer, and its noise scale."""

import re

import torch
from torch import Tensor, nn

from config import TrainConfig
from modules.across import full

LAYER = re.compile(r"(encoder\.)?(blocks\.\d+|[^.]+)")  # at the beginning of a parameter's name


def total_norm(grads: list[Tensor]) -> float:
    """The norm of gradients, also of those that lie in parts in several processes."""
    return full(nn.utils.get_total_norm(grads)).item()


def layer_norms(model: nn.Module) -> dict[str, float]:
    """The gradient's norm in each part of the model and in each block, by name."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        layer = LAYER.match(name)[0]
        layers.setdefault(layer, []).extend([] if parameter.grad is None else [parameter.grad])
    return {layer: total_norm(grads) for layer, grads in layers.items()}


class NoiseScale:
    """The gradient noise scale, from the gradients of single forward passes and of the whole step.

    McCandlish et al. 2018, arXiv:1812.06162, appendix A.1: both estimates are unbiased, but their ratio only if each is
    averaged over steps. Keeps a copy of the gradient.
    """

    def __init__(self):
        self._before: list[Tensor] = []
        self._squares: list[float] = []

    def after_pass(self, model: nn.Module) -> None:
        """Measure what the last pass added to the gradient: its part of the step's mean."""
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        added = torch._foreach_sub(grads, self._before) if self._before else grads
        self._squares.append(total_norm(added) ** 2)
        self._before = [grad.clone() for grad in grads]

    def after_step(self, pass_tokens: float) -> tuple[float, float] | None:
        """The squared norm of the true gradient, and the trace of the covariance of a token's gradient.

        None if the step was a single pass.
        """
        count, squares = len(self._squares), sum(self._squares)
        whole = total_norm(self._before) ** 2
        self._before, self._squares = [], []
        if count == 1:
            return None
        one = count * squares  # the mean square of a pass's own gradient, which is `count` times its part
        return (count * whole - one) / (count - 1), (one - whole) / (1 - 1 / count) * pass_tokens


class GradientWatch:
    """Measures what train.log_grad_norms and train.log_noise_scale request, and nothing else."""

    def __init__(self, cfg: TrainConfig):
        self.norms: dict[str, float] | None = {} if cfg.log_grad_norms else None
        self.noise = NoiseScale() if cfg.log_noise_scale else None

    def after_pass(self, model: nn.Module) -> None:
        if self.noise is not None:
            self.noise.after_pass(model)

    def after_step(self, model: nn.Module, pass_tokens: float, recent: list[tuple[float, float]]) -> None:
        """Measure the norms, and add the step's noise estimates to `recent`."""
        if self.norms is not None:
            self.norms = layer_norms(model)
        if self.noise is not None and (measured := self.noise.after_step(pass_tokens)):
            recent.append(measured)

    def columns(self, recent: list[tuple[float, float]]) -> dict[str, float | None]:
        """Columns of the log: the last step's norms, and the noise scale in tokens over the `recent` steps."""
        line: dict[str, float | None] = {f"grad_norm.{layer}": norm for layer, norm in (self.norms or {}).items()}
        if self.noise is not None:
            signal, noise = torch.tensor(recent, dtype=torch.float64).mean(0).tolist() if recent else (None, None)
            line |= {"grad_signal": signal, "grad_noise": noise, "noise_scale": noise / signal if signal else None}
        return line
