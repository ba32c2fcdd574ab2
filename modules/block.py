"""A layer: named branches, such as a mixer and an MLP, each in its wiring."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any

import torch
from torch import nn

from config import LayerConfig, ModelConfig, diff
from modules.memory import MEMORIES
from modules.mixers import MIXERS
from modules.mixers.beside import SideBySide
from modules.mixers.cross import CROSS
from modules.mlps import MLPS
from modules.norm import branch_norm_maker
from modules.residuals import RESIDUALS, NoSkip, PreNorm, Wiring
from modules.shift import TokenShift
from modules.short_conv import Convolved, ConvolvedHidden, ShortConv
from modules.stream import Context, Stream
from tools import LoggingModule, log_io

Caches = Mapping[str, Any]  # the cache of each branch of a block, by its name; None = the branch has none


class SkipToEmbedding(LoggingModule):
    """a x + b x_0: the stream and the embedding, by two learned numbers of a layer, 1 and 0 at first.

    The first layer to act notes x_0. Karpathy 2025 (nanochat); Jordan et al. 2024 (modded-nanogpt).
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    def __init__(self):
        super().__init__()
        self.own, self.embedded = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.own)
        nn.init.zeros_(self.embedded)

    @log_io
    def forward(self, stream: Stream) -> Stream:
        stream = stream if "embedded" in stream.carried else stream.carry(embedded=stream.x)
        return stream.with_x((self.own * stream.x + self.embedded * stream.carried["embedded"]).type_as(stream.x))


class Block(LoggingModule):
    """Branches in sequence, each with its wiring. Shape: stream.x (b, t, d) -> (b, t, d).

    `kind` describes how this layer differs from others, for print(model) and traces; "" = all layers are alike. `enter`
    changes the stream before the first branch, and `memory` after that, which also gets the context and a cache.
    """

    def __init__(
        self, branches: Mapping[str, Wiring], *, kind: str = "", enter: nn.Module | None = None,
        memory: nn.Module | None = None,
    ):
        first = {"enter": enter, "memory": memory}
        super().__init__()
        for name, part in (first | dict(branches)).items():
            if part is not None:
                self.add_module(name, part)
        self.branches, self.kind = tuple(branches), kind
        if kind:
            self.trace_name = f"{type(self).__name__} {kind.partition(':')[0]}"

    def extra_repr(self) -> str:
        return self.kind

    def __getitem__(self, name: str) -> nn.Module:
        return self._modules[name]

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def make_cache(self, max_len: int) -> Caches:
        parts = {name: self[name].branch for name in self.branches}
        parts |= {"memory": self["memory"]} if "memory" in self else {}
        return {name: part.make_cache(max_len) if hasattr(part, "make_cache") else None for name, part in parts.items()}

    def begin(self, stream: Stream, context: Context, caches: Caches | None) -> Stream:
        """The stream before the first branch."""
        stream = self["enter"](stream) if "enter" in self else stream
        return self["memory"](stream, context, caches and caches["memory"]) if "memory" in self else stream

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, caches: Caches | None = None) -> Stream:
        stream = self.begin(stream, context, caches)
        for name in self.branches:
            stream = self[name](stream, context, caches and caches[name])
        return stream


class ParallelBlock(Block):
    """x + mixer(norm(x)) + mlp(norm(x)), with one norm for all branches, or a norm within each.

    Wang & Komatsuzaki 2021 (GPT-J); Chowdhery et al. 2022, arXiv:2204.02311; two norms: GPT-NeoX, arXiv:2204.06745.
    Shape: stream.x (b, t, d) -> (b, t, d).
    """

    def __init__(self, branches: Mapping[str, Wiring], norm: nn.Module, **options: Any):
        super().__init__({"norm": norm, **branches}, **options)
        self.branches = tuple(branches)

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, caches: Caches | None = None) -> Stream:
        stream = self.begin(stream, context, caches)
        x, normalised = stream.x, self["norm"](stream.x)
        for name in self.branches:
            stream = self[name](stream.with_x(normalised), context, caches and caches[name])
            x = x + stream.x
        return stream.with_x(x)


class TwoHopBlock(Block):
    """x + mlp(norm(y)) with y = x + mixer(norm(x)): the skip of the last branch begins before the first.

    Ma et al. 2024, arXiv:2404.08801 (Megalodon), section 3.4. Shape: stream.x (b, t, d) -> (b, t, d).
    """

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, caches: Caches | None = None) -> Stream:
        stream = self.begin(stream, context, caches)
        x = stream.x
        for name in self.branches:
            stream = self[name](stream, context, caches and caches[name])
        return stream.with_x(x + stream.x)


def make_blocks(cfg: ModelConfig) -> nn.ModuleList:
    """All layers of a model, or of its encoder."""
    said = {kind: describe_kind(cfg, kind) for kind in set(cfg.layers)}
    return nn.ModuleList(make_block(cfg.at(i), kind=said[cfg.kind_at(i)]) for i in range(cfg.num_layers))


def describe_kind(cfg: ModelConfig, kind: str) -> str:
    """A kind of layer and its own flags, e.g. "local: attention.window=512"; "" if all layers are alike."""
    if len(set(cfg.layers)) == 1:
        return ""
    changes = [f"{name}={value}" for name, (_, value) in diff(cfg.by_kind["base"], cfg.by_kind[kind]).items()]
    return f"{kind}: {', '.join(changes)}" if changes else kind


def make_block(cfg: LayerConfig, *, kind: str = "") -> Block:
    """Build a layer from its flags."""
    parts = {name: _convolved(name, part, cfg) for name in BRANCHES if (part := _made(name, cfg)) is not None}
    memory = _chosen("memory", cfg.memory, MEMORIES)
    options = {"kind": kind, "memory": memory and memory.from_config(cfg),
               "enter": SkipToEmbedding() if cfg.skip_to_embedding else None}
    if cfg.residual in PARALLEL and len(parts) > 1:
        wiring, norm = PARALLEL[cfg.residual]
        return ParallelBlock(_wired(repeat(wiring), parts, cfg), norm(cfg), **options)
    if cfg.residual == "two_hop" and len(parts) > 1:
        return TwoHopBlock(_wired([*[PreNorm] * (len(parts) - 1), NoSkip], parts, cfg), **options)
    return Block(_wired(repeat(RESIDUALS[cfg.residual]), parts, cfg), **options)


def own_blocks(model: nn.Module) -> list[Block]:
    """The blocks that share no parameter with another part of the model, each once."""
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    inside = {part for block in blocks for part in block.modules()}
    owners = Counter(id(p) for block in blocks for p in block.parameters())
    owners.update(id(p) for part in model.modules() if part not in inside for p in part.parameters(recurse=False))
    return [block for block in blocks if all(owners[id(p)] == 1 for p in block.parameters())]


def _wired(wirings: Iterable[type[Wiring]], parts: Mapping[str, nn.Module], cfg: LayerConfig) -> dict[str, Wiring]:
    """Each branch in its wiring, which is told the number of the branch in the model, from 0."""
    earlier = (cfg.model.by_kind[cfg.model.kind_at(i)] for i in range(cfg.index))
    first = sum(getattr(layer, name) != "none" for layer in earlier for name in BRANCHES)
    return {name: wiring.from_config(cfg, part, first + place)
            for place, ((name, part), wiring) in enumerate(zip(parts.items(), wirings, strict=False))}


def _convolved(name: str, part: nn.Module, cfg: LayerConfig) -> nn.Module:
    """A branch, behind a token shift and a short convolution of its input, or with one within, as the flags ask."""
    if name == "mlp" and "hidden" in cfg.canon:
        part = ConvolvedHidden(part, cfg.hidden_width, length=cfg.canon_len)
    if name in cfg.token_shift:
        part = Convolved(part, TokenShift(cfg.dim, depth=cfg.index / cfg.model.num_layers, power=cfg.token_shift_power))
    return Convolved(part, ShortConv(cfg.dim, length=cfg.canon_len)) if name in cfg.canon else part


def _made(name: str, cfg: LayerConfig) -> nn.Module | None:
    """The part of a branch, of a mixer also with the one beside it; None = the layer has no such branch."""
    part = _chosen(name, getattr(cfg, name), BRANCHES[name])
    if name == "mixer" and cfg.beside != "none":
        return SideBySide.from_config(cfg, {cfg.mixer: part, cfg.beside: _chosen("beside", cfg.beside, MIXERS)})
    return part and part.from_config(cfg)


def _chosen(flag: str, word: str, menu: Mapping[str, Any]) -> Any:
    """The part of a word. Raises ValueError if it is in config.py and not in its menu."""
    if word not in menu:
        raise ValueError(f"model.{flag}={word} is in config.py, but not in the menu of its parts: add it there too")
    return menu[word]


# the branches of a block, in order: flag -> menu
BRANCHES = {"mixer": MIXERS, "cross": CROSS, "mlp": MLPS}

# of a ParallelBlock: the wiring of each branch, and the norm before all of them
PARALLEL = {"parallel": (Wiring, lambda cfg: branch_norm_maker(cfg)(cfg.dim)),
            "parallel_each": (NoSkip, lambda cfg: nn.Identity())}
