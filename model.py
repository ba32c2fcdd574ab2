"""The whole model on one page: embed -> blocks -> norm -> head.

`python model.py [preset] [flags]` prints the architecture, its parameters, and one traced forward.
"""

import signal
import sys

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from presets import parse_command_line

    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    command = parse_command_line(sys.argv[1:], program="python model.py", description=__doc__)

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from config import Config, ModelConfig, diff, override
from modules.block import RESIDUALS, Caches, make_block
from modules.embed import Embed
from modules.head import Head
from modules.masks import Documents
from modules.norm import norm_maker
from modules.pointer import Pointer
from modules.stream import Context, Stream
from presets import parse_command_line
from tools import LoggingModule, log_io, seed_everything, trace
from tracing.module_tables import parameter_table

OUT_STD = {"same": lambda std, cfg: std, "depth": lambda std, cfg: std * (2 * cfg.num_layers) ** -0.5,
           "zero": lambda std, cfg: 0.0}


class Hidden(NamedTuple):
    """What the head and the pointer predict from; `last` may be the last t of the s positions that the rest has.

    Shape: last (b, t, d), the stream after all layers, normalised; first (b, s, d), after one; tokens (b, s).
    """

    last: Tensor
    first: Tensor
    tokens: Tensor
    context: Context
    losses: dict[str, Tensor]  # auxiliary losses of the blocks

    def chunks(self, targets: Tensor, size: int | None) -> Iterator[tuple["Hidden", Tensor]]:
        """`size` positions after the other (None = all at once), with their targets (b, t)."""
        size, stop = size or targets.shape[1], 0
        for last, wanted in zip(self.last.split(size, dim=1), targets.split(size, dim=1), strict=True):
            stop += wanted.shape[1]
            context = self.context._replace(positions=self.context.positions[..., :stop])
            yield Hidden(last, self.first[:, :stop], self.tokens[:, :stop], context, {}), wanted


class Model(LoggingModule):
    """A stack of blocks between an embedding and a head, as its configuration describes it.

    Shape: tokens (b, t) int64 -> logits (b, t, v) float32. `documents` (b, t) int64 are equal for tokens of one
    document: none sees another, as if each were alone. Positions (t,) or (b, t) are those after the cache, or in the
    document, if none are given; negative ones are padding. `source` (b, s, d) is what cross-attention reads. With
    `last_only` there are logits of the last position alone, (b, 1, v).

    If not `causal`, a position sees those after it too. `checkpoint_activations` keeps only what goes from block to
    block, and computes the rest again for the gradient (Chen et al. 2016, arXiv:1604.06174): less memory, same results.
    Raises ValueError for a text longer than the positions that the model has learned, and for documents with a cache.
    """

    def __init__(self, cfg: ModelConfig, *, causal: bool = True, checkpoint_activations: bool = False):
        super().__init__()
        self.cfg, self.causal = cfg, causal
        self.run = partial(checkpoint, use_reentrant=False) if checkpoint_activations else _call
        self.embed = Embed.from_config(cfg)
        self.blocks = nn.ModuleList(make_block(cfg.at(i), kind=describe_kind(cfg, i)) for i in range(cfg.num_layers))
        self.norm = norm_maker(cfg)(cfg.dim) if cfg.final_norm else nn.Identity()
        self.head = Head.from_config(cfg)
        self.pointer = Pointer(cfg.dim, key_dim=cfg.pointer_dim, vocab_size=cfg.padded_vocab_size,
                               norm=norm_maker(cfg)(cfg.dim)) if cfg.pointer else None
        self.wiring = RESIDUALS[cfg.residual]
        self.windows = {part.window for part in self.modules() if hasattr(part, "window")}
        self.draw_weights()

    @log_io("b t -> b t v")
    def forward(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
        source: Tensor | None = None, cache: "Cache | None" = None, last_only: bool = False,
    ) -> Tensor:
        hidden = self.read(tokens, documents=documents, positions=positions, source=source, cache=cache)
        if last_only:  # the logits of all of a long text would be larger than all else
            hidden = hidden._replace(last=hidden.last[:, -1:])
        return self.predict(hidden, cache)

    def read(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
        source: Tensor | None = None, cache: "Cache | None" = None,
    ) -> Hidden:
        """Embed the tokens and run all layers: what `predict` makes logits of."""
        context = self.make_context(tokens, documents, positions, source, cache)
        stream, first = Stream(self.wiring.begin(self.embed(tokens, context.positions), self.cfg)), None
        layers = [None] * len(self.blocks) if cache is None else cache.layers
        for block, caches in zip(self.blocks, layers, strict=True):
            stream = self.run(block, stream, context, caches)
            first = self.wiring.end(stream.x) if first is None else first
        if cache is not None:
            cache.length += tokens.shape[1]
        return Hidden(self.norm(self.wiring.end(stream.x)), first, tokens, context, stream.losses)

    def make_context(
        self, tokens: Tensor, documents: Tensor | None, positions: Tensor | None, source: Tensor | None,
        cache: "Cache | None",
    ) -> Context:
        """What all layers are told. Raises ValueError for documents with a cache."""
        if documents is not None and cache is not None:
            raise ValueError("documents and a cache do not go together: to go on with a document, give it its own row")
        packed = None if documents is None else Documents.of(documents, self.windows, causal=self.causal)
        if positions is None and packed is not None:
            positions = packed.positions()
        elif positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return Context(positions, packed, self.causal, source)

    def predict(self, hidden: Hidden, cache: "Cache | None" = None) -> Tensor:
        """The logits of the positions of `hidden.last`. Shape: (b, t, v) float32."""
        logits = self.head(hidden.last)
        if self.pointer is None:
            return logits
        return self.pointer(logits, hidden.last, hidden.first, hidden.tokens, hidden.context, cache and cache.copied)

    def make_cache(self, max_len: int) -> "Cache":
        """Room for the state of `max_len` tokens in each layer; pass it to every forward."""
        return Cache([block.make_cache(max_len) for block in self.blocks],
                     self.pointer and self.pointer.make_cache(max_len))

    def init_weights(self) -> None:
        """Give every parameter and buffer its first value, e.g. after building on meta and `to_empty`.

        Equal to building directly, bit for bit, if the random state is what it was then.
        """
        for part in _inner_first(self):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        self.draw_weights()

    def draw_weights(self) -> None:
        """Draw every matrix anew, by rule: `init`, `out` by `out_init`, biases zero; tie what is shared."""
        cfg = self.cfg
        for path, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=cfg.init_std)
            elif isinstance(module, nn.Linear):
                std = _std(module, cfg)
                if path.split(".")[-1] == "out":
                    std = OUT_STD[cfg.out_init](std, cfg)
                if path == "head.unembed" and cfg.head_zero_init:
                    std = 0.0
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if cfg.tie_embeddings:
            self.head.unembed.weight = self.embed.tokens.weight

    @torch.no_grad()
    def after_step(self) -> None:
        """What parts do after each optimizer step, such as moving a router's bias: their own `after_step`."""
        for module in self.modules():
            if module is not self and hasattr(module, "after_step"):
                module.after_step()

    def dims(self) -> dict[str, int]:
        """The size of each axis that the flags fix, by its letter."""
        cfg = self.cfg
        layers = [cfg.at(i) for i in range(len(cfg.layers))]
        sizes = {"d": cfg.dim, "v": cfg.padded_vocab_size}
        if any(layer.mlp != "none" for layer in layers):
            sizes["f"] = cfg.hidden_width
        if any(layer.mixer == "attention" for layer in layers):
            sizes |= {"h": cfg.attention.num_heads, "g": cfg.attention.kv_heads, "p": cfg.head_width}
        return sizes

    def num_parameters(self) -> int:
        """All parameters, shared ones once."""
        return sum(p.numel() for p in self.parameters())


class Cache:
    """What each layer, and the pointer, keep of the `length` tokens seen so far; None = nothing."""

    def __init__(self, layers: list[Caches], copied):
        self.layers, self.copied, self.length = layers, copied, 0

    def keep_rows(self, rows: list[int], *, padding: int = 0) -> None:
        """Drop the other rows, and the first `padding` tokens, which none of those kept sees."""
        self.length -= padding
        for part in (*(part for layer in self.layers for part in layer.values()), self.copied):
            if part is not None:
                part.keep_rows(rows, padding=padding)


def describe_kind(cfg: ModelConfig, layer: int) -> str:
    """What sets a layer apart from the others, e.g. "local: attention.window=512"; "" if all are alike."""
    kind, base = cfg.kind_at(layer), cfg.by_kind["base"]
    if len(set(cfg.layers)) == 1:
        return ""
    changes = [f"{name}={value}" for name, (_, value) in diff(base, cfg.at(layer)).items()]
    return f"{kind}: {', '.join(changes)}" if changes else kind


def _inner_first(module: nn.Module) -> Iterator[nn.Module]:
    """All parts, each after those in it: the order in which they were made."""
    for child in module.children():
        yield from _inner_first(child)
        yield child


def _call(module: nn.Module, *args):
    return module(*args)


def flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of forward and backward for each token of a text of `seq_len`.

    Counted by running the model without data, or with data if its shapes depend on it; the backward pass is twice the
    forward. Attention is counted in full, the masked half too, as is usual.
    """
    try:
        with torch.device("meta"):
            return _count_flops(cfg, seq_len)
    except (DynamicOutputShapeException, NotImplementedError, RuntimeError):  # what nonzero and item raise on meta
        with torch.random.fork_rng(devices=[]):
            return _count_flops(cfg, seq_len)


def _count_flops(cfg: ModelConfig, seq_len: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Model(spelled_out(cfg))(torch.zeros(1, seq_len, dtype=torch.int64))
    return 3 * counter.get_total_flops() / seq_len


def spelled_out(cfg: ModelConfig) -> ModelConfig:
    """The same model with attention's scores computed step by step, for counting and for reading."""
    try:
        return override(cfg, {"attention.backend": "eager"})
    except ValueError:  # no layer attends
        return cfg


def _std(linear: nn.Linear, cfg: ModelConfig) -> float:
    inputs, outputs = linear.in_features, linear.out_features
    return {"normal": cfg.init_std, "fan_in": inputs**-0.5,
            "xavier": (2 / (inputs + outputs)) ** 0.5}[cfg.init]


REAL_SIZE = 300_000_000  # parameters; a larger model is shown without weights


def main(command: tuple[Config, dict[str, Any]] | None = None) -> None:
    """Show what the command line says, which may have been read already."""
    cfg, _ = command or parse_command_line(sys.argv[1:], program="python model.py", description=__doc__)
    vocab_size = cfg.model.vocab_size or cfg.tokenizer.vocab_size or 4096
    spelled = spelled_out(override(cfg.model, {"vocab_size": vocab_size}))
    with torch.device("meta"):
        num_parameters = Model(spelled).num_parameters()
    if num_parameters > REAL_SIZE:
        with FakeTensorMode():
            show(spelled, batch_size=2, seq_len=16)
    else:
        seed_everything(cfg.train.seed)
        show(spelled, batch_size=2, seq_len=min(16, spelled.max_seq_len))


def show(cfg: ModelConfig, *, batch_size: int, seq_len: int) -> None:
    """Print the architecture, its parameters, and the trace of a forward on random tokens."""
    model = Model(cfg).eval()
    print(model, end="\n\n")
    print(parameter_table(model), end="\n\n")
    with torch.no_grad(), trace(model) as t:
        model(torch.randint(cfg.vocab_size, (batch_size, seq_len)))
    print(t)


if __name__ == "__main__":
    main(command)
