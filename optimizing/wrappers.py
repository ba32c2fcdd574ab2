"""What torch's optimizers lack: several that step together, and averages of weights."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Optimizers:
    """One or more torch optimizers that step together."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_lr(self, lr: float) -> None:
        """Set the rate of each group to `lr` times its multiplier."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_mult"]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def eval(self) -> None:
        """Swap in the averaged weights, if the optimizer keeps an average. A second call changes nothing."""

    def train(self) -> None:
        """Swap the trained weights back in, bit for bit."""

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Iterable[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


class AveragingOptimizer(Optimizers):
    """An optimizer of pytorch_optimizer whose eval() and train() swap averaged and trained weights.

    Its own way back rounds, so the trained weights are kept: evaluating a model must not change it.
    """

    def __init__(self, part: torch.optim.Optimizer):
        super().__init__(part)
        self._trained: list[Tensor] | None = None  # None = the model has them

    def eval(self) -> None:
        if self._trained is None:
            self._trained = [p.detach().clone() for group in self.param_groups for p in group["params"]]
            self.parts[0].eval()

    @torch.no_grad()
    def train(self) -> None:
        if self._trained is not None:
            self.parts[0].train()
            parameters = [p for group in self.param_groups for p in group["params"]]
            for parameter, trained in zip(parameters, self._trained, strict=True):
                parameter.copy_(trained)
            self._trained = None

    def state_dict(self) -> list[dict[str, Any]]:
        return [*super().state_dict(), {"trained": self._trained}]

    def load_state_dict(self, states: Iterable[dict[str, Any]]) -> None:
        *states, kept = states
        super().load_state_dict(states)
        self._trained = kept["trained"]
        self.train()


class MovingAverage:
    """A model whose weights are an exponential moving average of another model's.

    Corrected for the bias of its start: after one step it equals that step's weights (Kingma & Ba 2014,
    arXiv:1412.6980, section 3). It depends only on the weights and the number of steps. Floating-point buffers are
    averaged too; other buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        copies = {id(p): nn.Parameter(p.detach().clone(), requires_grad=False) for p in model.parameters()}
        copies |= {id(buffer): buffer.clone() for buffer in model.buffers()}  # deepcopy reads data: fake ones have none
        self.model, self.decay = copy.deepcopy(model, copies), decay

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Add the weights after `steps` steps, from 1."""
        weight = (1 - self.decay) / (1 - self.decay**steps)
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            if average.is_floating_point():
                average.lerp_(buffer, weight)
            else:
                average.copy_(buffer)
