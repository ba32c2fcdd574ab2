"""Parts that predict tokens beyond the next: the `ahead` flag.

The part of depth k, from 1, predicts x[i + k + 1] at position i. It has a block like the last layer, which takes
nothing from other layers; embedding and head are the model's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.block import Caches, make_block
from modules.linear import Linear
from modules.norm import norm_maker
from modules.residuals import RESIDUALS
from modules.stream import Context, Stream
from tools import LoggingModule, log_io


class Depth(NamedTuple):
    """What a part makes. Shape: (b, t, d) twice."""

    state: Tensor  # what the part of the next depth reads
    last: Tensor  # what the head reads
    losses: dict[str, Tensor]  # auxiliary losses of the block


class Alone(LoggingModule):
    """A block like the last layer, as the only one. Shape: x (b, t, d) -> (b, t, d), and its auxiliary losses."""

    def __init__(self, cfg: ModelConfig, *, run: Callable):
        super().__init__()
        self.cfg, self.run, self.wiring = cfg, run, RESIDUALS[cfg.at(0).residual]
        self.block, self.exit = make_block(cfg.at(0)), self.wiring.make_exit(cfg)

    def make_cache(self, max_len: int) -> Caches:
        return self.block.make_cache(max_len)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, caches: Caches | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        stream = self.run(self.block, Stream(self.wiring.begin(x, self.cfg)), context, caches)
        return stream.x if self.exit is None else self.exit(stream), stream.losses


class Ahead(LoggingModule):
    """The base class: the parts of all depths."""

    reads_tokens: bool  # whether the part of depth k reads x[i + k] at position i, besides a state

    def __init__(self, parts: list[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    @staticmethod
    def layer(number: int) -> int:
        """The number of the layer, of so many that act, whose stream the first part reads."""
        raise NotImplementedError

    def step(
        self, k: int, x: Tensor, tokens: Tensor, context: Context, embed: nn.Module, norm: nn.Module,
        cache: Any = None,
    ) -> Depth:
        """The part of depth k on a state (b, t, d), and on the tokens x[i + k], -1 where there is none."""
        raise NotImplementedError

    @log_io("b t d, b t ->")
    def forward(
        self, x: Tensor, tokens: Tensor, context: Context, embed: nn.Module, norm: nn.Module,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What the head reads for each depth, and the sums of auxiliary losses."""
        found, losses = [], {}
        for k in range(1, len(self.parts) + 1):
            made = self.step(k, x, shifted(tokens, context.positions, k, fill=-1), context, embed, norm)
            x = made.state
            found.append(made.last)
            losses = {name: loss + losses.get(name, 0.0) for name, loss in made.losses.items()}
        return found, losses

    def make_caches(self, max_len: int) -> list[Any]:
        """A cache for the part of each depth."""
        raise NotImplementedError


class Heads(Ahead):
    """A block for each further token, beside the last layer: all read the stream before it, and share the last norm.

    Gloeckle et al. 2024, arXiv:2404.19737, section 2. If there is one layer, they read the stream after it.
    Shape: x (b, t, d) -> (b, t, d) for each depth.
    """

    reads_tokens = False

    @classmethod
    def from_config(cls, cfg: ModelConfig, *, run: Callable) -> "Heads":
        return cls([Alone(cfg.last_alone, run=run) for _ in range(cfg.ahead_depth)])

    @staticmethod
    def layer(number: int) -> int:
        return max(0, number - 2)

    def step(
        self, k: int, x: Tensor, tokens: Tensor, context: Context, embed: nn.Module, norm: nn.Module,
        cache: Any = None,
    ) -> Depth:
        y, losses = self.parts[k - 1](x, context, cache)
        return Depth(x, norm(y), losses)

    def make_caches(self, max_len: int) -> list[Any]:
        return [part.make_cache(max_len) for part in self.parts]


class Module(LoggingModule):
    """Block(W [norm(e); norm(h)]), with the embedding e of a token and a state h, and a norm for the head.

    Shape: e and h (b, t, d) -> the next state, and what the head reads, (b, t, d) each.
    """

    def __init__(self, cfg: ModelConfig, *, run: Callable):
        super().__init__()
        self.embed_norm, self.state_norm = (norm_maker(cfg)(cfg.dim) for _ in range(2))
        self.join = Linear(2 * cfg.dim, cfg.dim, bias=False)
        self.alone = Alone(cfg.last_alone, run=run)
        self.norm = norm_maker(cfg)(cfg.dim) if cfg.final_norm else nn.Identity()

    @log_io("b t d, b t d -> b t d, b t d")
    def forward(self, e: Tensor, h: Tensor, context: Context, caches: Caches | None = None) -> Depth:
        x = self.join(torch.cat([self.embed_norm(e), self.state_norm(h)], dim=-1))
        x, losses = self.alone(x, context, caches)
        return Depth(x, self.norm(x), losses)


class Modules(Ahead):
    """One Module after another; that of depth k reads the state of the one before and x[i + k].

    The first reads the stream after the last layer. What it reads never crosses the end of a document.
    DeepSeek-AI 2024, arXiv:2412.19437, section 2.2. Shape: x (b, t, d) -> (b, t, d) for each depth.
    """

    reads_tokens = True

    @classmethod
    def from_config(cls, cfg: ModelConfig, *, run: Callable) -> "Modules":
        return cls([Module(cfg, run=run) for _ in range(cfg.ahead_depth)])

    @staticmethod
    def layer(number: int) -> int:
        return number - 1

    def step(
        self, k: int, x: Tensor, tokens: Tensor, context: Context, embed: nn.Module, norm: nn.Module,
        cache: Any = None,
    ) -> Depth:
        there = tokens.clamp(min=0)
        e = embed(there, context.positions).where((tokens >= 0).unsqueeze(-1), 0.0)
        return self.parts[k - 1](e, x, context._replace(tokens=there), cache)

    def make_caches(self, max_len: int) -> list[Any]:
        return [part.alone.make_cache(max_len) for part in self.parts]


def shifted(values: Tensor, positions: Tensor, k: int, *, fill: int) -> Tensor:
    """values[i + k] at i; `fill` if that is past the end of the row or of the document.

    Shape: values (b, t), positions (t,) or (b, t) -> (b, t).
    """
    t = values.shape[1]
    later, places = (nn.functional.pad(x[..., k:], (0, k), value=fill)[..., :t] for x in (values, positions))
    is_there = (places == positions + k) & (torch.arange(t, device=values.device) + k < t)
    return later.where(is_there, fill)


AHEAD = {"none": None, "heads": Heads, "modules": Modules}
