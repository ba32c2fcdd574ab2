"""The way through the layers: the `stack` flag. In the plain one, each layer acts once, in order.

A stack is built by `from_config(cfg: ModelConfig)`. Its `forward(stream, run)` calls `run(layer, stream) -> stream` for
each layer, by its number, as often as it likes; `order()` are the numbers in order, for caches.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.norm import fill, norm_maker
from modules.stream import Stream
from tools import LoggingModule, log_io

Run = Callable[[int, Stream], Stream]


class Looped(LoggingModule):
    """All layers, `num_loops` times with the same weights; `inject` adds the embedding before each further loop.

    Dehghani et al. 2018, arXiv:1807.03819 (Universal Transformer); Geiping et al. 2025, arXiv:2502.05171.
    """

    def __init__(self, num_layers: int, *, num_loops: int, inject: bool):
        super().__init__()
        self.num_layers, self.num_loops, self.inject = num_layers, num_loops, inject

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "Looped":
        return cls(cfg.num_layers, num_loops=cfg.loop.num_loops, inject=cfg.loop.inject)

    def extra_repr(self) -> str:
        return f"num_loops={self.num_loops}, inject={self.inject}"

    def order(self) -> list[int]:
        return [*range(self.num_layers)] * self.num_loops

    @log_io
    def forward(self, stream: Stream, run: Run) -> Stream:
        embedded = stream.x
        for loop in range(self.num_loops):
            if loop and self.inject:
                stream = stream.with_x(stream.x + embedded)
            stream = through(range(self.num_layers), stream, run)
        return stream


class Hierarchical(LoggingModule):
    """Two states that read each other: the first half of the layers makes steps of a fast one, the rest of a slow one.

    z_low <- low(z_low + z_high), `low_cycles` times, then z_high <- high(z_high + z_low), all of it `high_cycles`
    times; each half ends in a norm. z_low begins at 0 and z_high at the embedding. The gradient passes through the last
    step of z_low of each cycle, and through the last `grad_cycles` of the last one.
    Wang et al. 2025, arXiv:2506.21734 (HRM), as in HRM-Text.
    """

    def __init__(
        self, num_layers: int, low_norm: nn.Module, high_norm: nn.Module, *, high_cycles: int, low_cycles: int,
        grad_cycles: int,
    ):
        super().__init__()
        self.low, self.high = range(num_layers // 2), range(num_layers // 2, num_layers)
        self.low_norm, self.high_norm = low_norm, high_norm
        self.high_cycles, self.low_cycles, self.grad_cycles = high_cycles, low_cycles, grad_cycles

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "Hierarchical":
        low_norm, high_norm = (norm_maker(cfg)(cfg.dim) for _ in range(2))
        return cls(cfg.num_layers, low_norm, high_norm, high_cycles=cfg.hrm.high_cycles, low_cycles=cfg.hrm.low_cycles,
                   grad_cycles=cfg.hrm.grad_cycles)

    def extra_repr(self) -> str:
        return f"high_cycles={self.high_cycles}, low_cycles={self.low_cycles}, grad_cycles={self.grad_cycles}"

    def order(self) -> list[int]:
        return ([*self.low] * self.low_cycles + [*self.high]) * self.high_cycles

    @log_io
    def forward(self, stream: Stream, run: Run) -> Stream:
        high, low = stream.x, torch.zeros_like(stream.x)
        for cycle in range(self.high_cycles):
            grad_cycles = self.grad_cycles if cycle == self.high_cycles - 1 else 1
            for step in range(self.low_cycles):
                with torch.no_grad() if step < self.low_cycles - grad_cycles else nullcontext():
                    stream = through(self.low, stream.with_x(low + high), run)
                    low = self.low_norm(stream.x)
            stream = through(self.high, stream.with_x(high + low), run)
            high = self.high_norm(stream.x)
        return stream.with_x(high)


def go_through(stack: nn.Module | None, num_layers: int, stream: Stream, run: Run) -> Stream:
    """The stream after all layers; no stack = each once, in order."""
    return through(range(num_layers), stream, run) if stack is None else stack(stream, run)


def through(layers: range, stream: Stream, run: Run) -> Stream:
    for layer in layers:
        stream = run(layer, stream)
    return stream


class UNet(LoggingModule):
    """Skips from each layer of the first half to the one as far from the end: x + w x_earlier, w learned, 1 at first.

    Jordan et al. 2024 (modded-nanogpt), after Ronneberger et al. 2015, arXiv:1505.04597.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.num_layers, self.weights = num_layers, nn.Parameter(torch.empty(num_layers // 2))
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ModelConfig) -> "UNet":
        return cls(cfg.num_layers)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weights)

    def order(self) -> list[int]:
        return [*range(self.num_layers)]

    @log_io
    def forward(self, stream: Stream, run: Run) -> Stream:
        earlier: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer >= self.num_layers - len(self.weights):
                weight = self.weights[self.num_layers - 1 - layer]
                stream = stream.with_x(stream.x + weight.type_as(stream.x) * earlier.pop())
            stream = run(layer, stream)
            if layer < len(self.weights):
                earlier.append(stream.x)
        return stream


class Backout(LoggingModule):
    """x - w x_middle: the last stream without a share of that after a middle layer, w learned.

    Karpathy 2026 (nanochat); Jordan et al. 2025 (modded-nanogpt). `layer` is the number of the middle layer, from 0,
    among all in the order in which they act.
    Shape: x (b, t, d), x_middle (b, t, d) -> (b, t, d).
    """

    def __init__(self, num_layers: int, *, depth: float, start: float):
        super().__init__()
        self.layer = min(int(depth * num_layers), num_layers - 2)
        self.start, self.factor = start, nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ModelConfig, *, num_steps: int) -> "Backout | None":
        """None if it is off; `num_steps` counts a layer each time it acts."""
        return None if cfg.backout is None else cls(num_steps, depth=cfg.backout_depth, start=cfg.backout)

    def extra_repr(self) -> str:
        return f"layer={self.layer}"

    def reset_parameters(self) -> None:
        fill(self.factor, self.start)

    @log_io("b t d, b t d -> b t d")
    def forward(self, x: Tensor, middle: Tensor) -> Tensor:
        return x - self.factor.type_as(x) * middle


STACKS = {"plain": None, "loop": Looped, "hrm": Hierarchical, "unet": UNet}
