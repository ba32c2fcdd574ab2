"""The whole model on one page: embed -> blocks -> norm -> head.

`python model.py [PRESET or RUN] [flags]` prints the architecture, its parameters, and one traced forward pass; of a
saved run with its trained weights, on real tokens.
"""

if __name__ == "__main__":  # the program also shows saved runs, which stand above this file
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()
    from showing.command import main

    raise SystemExit(main())

from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import count, repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint

from config import ModelConfig, override, require_both_ways
from configuration.scaling import widened
from modules.ahead import AHEAD
from modules.block import Caches, make_blocks
from modules.decoding import lean
from modules.denoiser import make_embed, make_head
from modules.encoder import Encoder
from modules.init import draw_matrices, normalise_matrices
from modules.mixers.kv_cache import KVCache
from modules.mixers.recurrent import State
from modules.norm import norm_maker
from modules.pointer import Pointer
from modules.residuals import RESIDUALS
from modules.residuals.wiring import way_to_call
from modules.scaling import Growth, growth
from modules.shift import Smear
from modules.short_conv import ConvCache
from modules.sizes import axis_sizes, idle_parameters
from modules.stacks import STACKS, Backout, go_through
from modules.stream import Context, Source, Stream, make_context, require_source
from modules.timestep_norm import TimestepNorm
from tools import LoggingModule, log_io, unfilled

MUCH_WIDER = 1024  # times, so that roundings of sizes do not hide how they grow


class Hidden(NamedTuple):
    """What the head and the pointer predict from. `last` may have only the last t of the s positions.

    Shape: last (b, t, d), the normalised stream after all layers; first (b, s, d), after one layer; tokens (b, s);
    below (b, s, d), what the parts of `ahead` read, if there are any.
    """

    last: Tensor
    first: Tensor
    tokens: Tensor
    context: Context
    losses: dict[str, Tensor]  # auxiliary losses of the blocks
    below: Tensor | None = None

    def chunks(self, targets: Tensor, size: int | None) -> Iterator[tuple["Hidden", Tensor]]:
        """Split into chunks of `size` positions (None = one chunk), each with its targets (b, t)."""
        size, stop = size or targets.shape[1], 0
        for last, wanted in zip(self.last.split(size, dim=1), targets.split(size, dim=1), strict=True):
            stop += wanted.shape[1]
            context = self.context._replace(positions=self.context.positions[..., :stop])
            yield Hidden(last, self.first[:, :stop], self.tokens[:, :stop], context, {}), wanted


class Model(LoggingModule):
    """A stack of blocks between an embedding and a head, as its configuration describes it.

    Shape: tokens (b, t) int64 -> logits (b, t, v) float32; with `last_only` of the last position alone, (b, 1, v).
    `documents` (b, t) int64 are equal within a document; documents of a row do not see each other. Positions (t,) or
    (b, t) default to those after the cache, or within the document; negative ones are padding. `source` is what
    cross-attention reads, e.g. `model.encode(source_tokens)`; with a cache the first forward reads it, and the cache
    keeps it for the others.

    If not `causal`, a position also sees later ones. `checkpoint_activations` keeps only what flows between blocks and
    recomputes the rest for the gradient (Chen et al. 2016, arXiv:1604.06174): less memory, same results.
    Raises ValueError for a text longer than the learned positions, for documents with a cache, for a source that is
    missing or that nothing would read, and for a recurrent mixer in a model that is not causal.
    """

    def __init__(self, cfg: ModelConfig, *, causal: bool = True, checkpoint_activations: bool = False):
        super().__init__()
        self.cfg, self.causal = cfg, causal
        if not causal:
            require_both_ways(cfg, "a model that is not causal")
        self.run = partial(checkpoint, use_reentrant=False) if checkpoint_activations else _call
        self.embed = make_embed(cfg)
        self.smear = Smear(min(cfg.dim, cfg.smear_dim)) if cfg.smear else None
        self.encoder = Encoder(cfg.encoder, run=self.run) if cfg.encoder_layers else None
        self.blocks = make_blocks(cfg)
        self.norm = make_final_norm(cfg)
        self.call_norm = way_to_call(self.norm)
        self.head = make_head(cfg)
        self.pointer = Pointer(cfg.dim, key_dim=cfg.pointer_dim, vocab_size=cfg.padded_vocab_size,
                               norm=norm_maker(cfg)(cfg.dim)) if cfg.pointer else None
        self.wiring = RESIDUALS[cfg.residual]
        self.exit = self.wiring.make_exit(cfg)
        self.stack = STACKS[cfg.stack] and STACKS[cfg.stack].from_config(cfg)
        self.backout = Backout.from_config(cfg, num_steps=len(self.order()))
        self.ahead = AHEAD[cfg.ahead] and AHEAD[cfg.ahead].from_config(cfg, run=self.run)
        self.below = self.ahead and self.ahead.layer(len(self.order()))
        self.kept = {0, self.below, self.backout and self.backout.layer}  # layers after which the stream is kept
        self.reads_source = any("cross" in block.branches for block in self.blocks)
        self.growths = {} if cfg.scaling == "standard" else growths_of(cfg)
        self.patterns = {part.pattern for part in self.modules() if hasattr(part, "pattern")}
        self.draw_weights()

    @log_io("b t -> b t v")
    def forward(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
        source: Source | None = None, cache: "Cache | None" = None, last_only: bool = False,
        sight: Tensor | None = None,
    ) -> Tensor:
        hidden = self.read(tokens, documents=documents, positions=positions, source=source, cache=cache, sight=sight)
        if last_only:  # the logits of a long prompt would take more memory than anything else
            hidden = hidden._replace(last=hidden.last[:, -1:])
        return self.predict(hidden, cache)

    def read(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
        source: Source | None = None, cache: "Cache | None" = None, sight: Tensor | None = None,
        x: Tensor | None = None,
    ) -> Hidden:
        """Embed the tokens, unless the layers begin with x (b, t, d), and run all layers, for `predict`."""
        num_cached = None if cache is None else cache.length
        require_source(source, is_read=self.reads_source, read_before=bool(num_cached))
        context = make_context(tokens, documents=documents, positions=positions, source=source, num_cached=num_cached,
                               patterns=self.patterns, causal=self.causal, sight=sight)
        caches, number, kept = repeat(None) if cache is None else iter(cache.layers), count(), {}

        def run(layer: int, stream: Stream) -> Stream:
            stream = self.run(self.blocks[layer], stream, context, next(caches))
            if (place := next(number)) in self.kept:
                kept[place] = self.leave(stream)
            return stream

        x = self.wiring.begin(self.embedded(tokens, context, cache) if x is None else x, self.cfg)
        stream = Stream(x, {} if source is None else source.losses)
        stream = go_through(self.stack, len(self.blocks), stream, run)
        if cache is not None:
            cache.length += tokens.shape[1]
        last = self.leave(stream)
        last = last if self.backout is None else self.backout(last, kept[self.backout.layer])
        last, _ = self.call_norm(self.norm, last, stream, context, cache and cache.normalised)
        return Hidden(last, kept[0], tokens, context, stream.losses, kept.get(self.below))

    def look_ahead(self, hidden: Hidden) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What the head predicts each further token from, (b, t, d) each, and the auxiliary losses of its making."""
        return self.ahead(hidden.below, hidden.tokens, hidden.context, self.embed, self.norm)

    def embedded(self, tokens: Tensor, context: Context, cache: "Cache | None" = None) -> Tensor:
        """What the layers begin with. Shape: (b, t) -> (b, t, d)."""
        x = self.embed(tokens, context.positions)
        return x if self.smear is None else self.smear(x, context, cache and cache.smeared)

    def leave(self, stream: Stream) -> Tensor:
        """What the head and the pointer read of the stream after a block. Shape: (b, t, d)."""
        return stream.x if self.exit is None else self.exit(stream)

    @log_io("b t -> b t d")
    def encode(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
    ) -> Source:
        """What the encoder makes of a source (b, t), for `source`; documents and positions are as in a forward.

        Raises ValueError if there is no encoder.
        """
        if self.encoder is None:
            raise ValueError("model.encoder_layers=None: this model has no encoder; give their number")
        context = make_context(tokens, documents=documents, positions=positions, source=None, num_cached=None,
                               patterns=self.patterns, causal=False)
        states, losses = self.encoder(self.embedded(tokens, context), context)
        return Source(states, positions, documents, losses)

    def predict(self, hidden: Hidden, cache: "Cache | None" = None) -> Tensor:
        """The logits of the positions of `hidden.last`. Shape: (b, t, v) float32."""
        logits = self.head(hidden.last)
        if self.pointer is None:
            return logits
        return self.pointer(logits, hidden.last, hidden.first, hidden.tokens, hidden.context, cache and cache.copied)

    def copied(self, hidden: Hidden, targets: Tensor) -> tuple[Tensor, ...]:
        """What the pointer adds for each target and for all tokens: see Pointer.of_targets. () = there is none."""
        if self.pointer is None:
            return ()
        return self.pointer.of_targets(hidden.last, hidden.first, hidden.tokens, targets, hidden.context)

    def order(self) -> Sequence[int]:
        """The numbers of the layers, in the order in which they act."""
        return range(len(self.blocks)) if self.stack is None else self.stack.order()

    def make_cache(self, max_len: int) -> "Cache":
        """A cache for `max_len` tokens in each layer; pass it to every forward."""
        return Cache([self.blocks[layer].make_cache(max_len) for layer in self.order()],
                     self.pointer and self.pointer.make_cache(max_len), self.smear and ConvCache(),
                     self.norm.make_cache(max_len) if isinstance(self.norm, TimestepNorm) else None)

    def lean(self) -> "Model":
        """The same model, quicker to call, for generating; see modules/decoding.py."""
        return lean(self)

    def init_weights(self) -> None:
        """Initialise every parameter and buffer, e.g. after building on meta and `to_empty`.

        Equals building directly, bit for bit, from the same random state.
        """
        for part in _inner_first(self):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        self.draw_weights()

    def draw_weights(self) -> None:
        """Draw every matrix anew by the rules of modules/init.py, and tie the weights that are shared."""
        draw_matrices(self, self.cfg, self.growths)
        if self.cfg.tie_embeddings:
            self.head.unembed.weight = self.embed.tokens.weight

    @torch.no_grad()
    def after_step(self) -> None:
        """Call `after_step` of the parts that have one, e.g. to update a router's bias after each optimizer step."""
        for module in self.modules():
            if module is not self and hasattr(module, "after_step"):
                module.after_step()
        if self.cfg.unit_weights:
            normalise_matrices(self)

    def dims(self) -> dict[str, int | tuple[int, ...]]:
        """The size of each axis that the flags fix, by its letter."""
        return axis_sizes(self.cfg)

    def num_parameters(self) -> int:
        """All parameters, shared ones once."""
        return sum(p.numel() for p in self.parameters())


def spell_parameters(model: Model) -> str:
    """e.g. "46,702,792,704 parameters, 12,879,921,152 of them active for a token"."""
    total, idle = model.num_parameters(), idle_parameters(model)
    return f"{total:,} parameters" + (f", {total - idle:,} of them active for a token" if idle else "")


class Cache:
    """What each layer, the pointer, the smear and the last norm keep of the `length` tokens so far; None = nothing."""

    def __init__(
        self, layers: list[Caches], copied: KVCache | None, smeared: ConvCache | None, normalised: State | None,
    ):
        self.layers, self.copied, self.smeared, self.normalised, self.length = layers, copied, smeared, normalised, 0

    def drop_last(self, number: int) -> None:
        """Forget the last `number` tokens; see modules/rewind.py."""
        self.length -= number

    def keep_rows(self, rows: list[int], *, padding: int = 0) -> None:
        """Keep these rows, without their first `padding` tokens, which are padding in all of them."""
        self.length -= padding
        parts = (part for layer in self.layers for part in layer.values())
        for part in (*parts, self.copied, self.smeared, self.normalised):
            if part is not None:
                part.keep_rows(rows, padding=padding)


@cache
def growths_of(cfg: ModelConfig) -> dict[str, Growth]:
    """How each parameter grows with the width, by its name: from the shapes of this model and of one much wider."""
    plain = override(cfg, {"scaling": "standard", "base_dim": 128, "base_layers": 3, "max_seq_len": 2})
    with _disable_current_modes(), unfilled():  # a prediction of memory counts what is made
        return growth(Model(plain), Model(widened(plain, MUCH_WIDER)), MUCH_WIDER)


def make_final_norm(cfg: ModelConfig) -> nn.Module:
    """The norm before the head."""
    if cfg.final_norm_groups is not None:
        return TimestepNorm(cfg.dim, num_groups=cfg.final_norm_groups, eps=cfg.norm_eps)
    return norm_maker(cfg)(cfg.dim) if cfg.final_norm else nn.Identity()


def _inner_first(module: nn.Module) -> Iterator[nn.Module]:
    """All parts, each after those inside it: the order in which they were built."""
    for child in module.children():
        yield from _inner_first(child)
        yield child


def _call(module: nn.Module, *args):
    return module(*args)


def some_source(model: Model, tokens: Tensor) -> Source | None:
    """A source for a model that reads one, to count FLOPs or to look at it: its encoder's of tokens (b, s) or noise."""
    if not model.reads_source:
        return None
    return Source(torch.randn(*tokens.shape, model.cfg.dim)) if model.encoder is None else model.encode(tokens)


def spelled_out(cfg: ModelConfig) -> ModelConfig:
    """The same model with attention.backend=eager, for counting FLOPs and for reading."""
    try:
        return override(cfg, {"attention.backend": "eager"})
    except ValueError:  # no layer attends
        return cfg
