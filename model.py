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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from config import Config, ModelConfig, replace
from modules.block import make_block
from modules.embed import Embed
from modules.head import Head, Loss, num_targets
from modules.masks import Documents
from modules.norm import norm_maker
from modules.pointer import Pointer
from presets import parse_command_line
from tools import LoggingModule, log_io, seed_everything, trace
from tracing.module_tables import parameter_table

OUT_STD = {"same": lambda std, cfg: std, "depth": lambda std, cfg: std * (2 * cfg.num_layers) ** -0.5,
           "zero": lambda std, cfg: 0.0}


class Hidden(NamedTuple):
    """What the head and the pointer predict from; `last` may be the last t of the s positions that the rest has.

    Shape: last (b, t, d), the stream after all layers; first (b, s, d), after one; tokens (b, s), positions (s,) or
    (b, s).
    """

    last: Tensor
    first: Tensor
    tokens: Tensor
    positions: Tensor
    documents: Documents | None

    def parts(self, targets: Tensor, size: int | None) -> Iterator[tuple["Hidden", Tensor]]:
        """`size` positions after the other (None = all at once), with their targets (b, t)."""
        size, stop = size or targets.shape[1], 0
        for last, wanted in zip(self.last.split(size, dim=1), targets.split(size, dim=1), strict=True):
            stop += wanted.shape[1]
            before = self.first[:, :stop], self.tokens[:, :stop], self.positions[..., :stop]
            yield Hidden(last, *before, self.documents), wanted


class Model(LoggingModule):
    """A decoder-only language model, as its configuration describes it.

    Shape: tokens (b, t) int64 -> logits (b, t, v) float32; with targets (b, t) the loss, a scalar
    in nats per token. Targets of -100 never count. `documents` (b, t) int64 are equal where tokens
    stand in one document: none sees another, as if each were alone. Positions (t,) or (b, t) are
    those after the cache, or in the document, where none are given; negative ones are padding.
    With `last_only` there are logits of the last position alone, (b, 1, v).

    `checkpoint_activations` keeps only what goes from block to block, and computes the rest again
    for the gradient (Chen et al. 2016, arXiv:1604.06174). `loss_chunk` does so with the logits, which
    then exist for so many positions of each row at a time. Both save memory and change no result.
    Raises ValueError where a text is longer than the positions that the model has learned, and for
    documents with a cache.
    """

    def __init__(self, cfg: ModelConfig, *, checkpoint_activations: bool = False, loss_chunk: int | None = None):
        super().__init__()
        self.cfg, self.loss_chunk = cfg, loss_chunk
        self.run = partial(checkpoint, use_reentrant=False) if checkpoint_activations else _call
        self.embed = Embed.from_config(cfg)
        self.blocks = nn.ModuleList(make_block(cfg, layer) for layer in range(cfg.num_layers))
        self.norm = norm_maker(cfg)(cfg.dim) if cfg.final_norm else nn.Identity()
        self.head = Head.from_config(cfg)
        self.pointer = Pointer(cfg.dim, key_dim=cfg.pointer_dim, vocab_size=cfg.padded_vocab_size,
                               norm=norm_maker(cfg)(cfg.dim)) if cfg.pointer else None
        self.loss = Loss(z_loss=cfg.z_loss)
        self.windows = {part.window for part in self.modules() if hasattr(part, "window")}
        self.init_weights()

    @log_io("b t -> b t v")
    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, *, documents: Tensor | None = None,
        positions: Tensor | None = None, cache: "Cache | None" = None, last_only: bool = False,
    ) -> Tensor:
        hidden = self.read(tokens, documents=documents, positions=positions, cache=cache)
        if last_only:  # the logits of all of a long text would be larger than all else
            hidden = hidden._replace(last=hidden.last[:, -1:])
        if targets is not None and cache is None and self.loss_chunk is not None:
            return self.chunked_loss(hidden, targets)
        logits = self.predict(hidden, cache)
        return logits if targets is None else self.loss(logits, targets)

    def read(
        self, tokens: Tensor, *, documents: Tensor | None = None, positions: Tensor | None = None,
        cache: "Cache | None" = None,
    ) -> Hidden:
        """Embed the tokens and run all layers: what `predict` makes logits of."""
        if documents is not None and cache is not None:
            raise ValueError("documents and a cache do not go together: to go on with a document, give it its own row")
        packed = None if documents is None else Documents.of(documents, self.windows)
        if positions is None:
            positions = _count_positions(tokens, packed, cache)
        x, first = self.embed(tokens, positions), None
        layers = [None] * len(self.blocks) if cache is None else cache.layers
        for block, layer in zip(self.blocks, layers, strict=True):
            x = self.run(block, x, positions=positions, documents=packed, cache=layer)
            first = x if first is None else first
        if cache is not None:
            cache.length += tokens.shape[1]
        return Hidden(self.norm(x), first, tokens, positions, packed)

    def predict(self, hidden: Hidden, cache: "Cache | None" = None) -> Tensor:
        """The logits of the positions of `hidden.last`. Shape: (b, t, v) float32."""
        logits = self.head(hidden.last)
        if self.pointer is None:
            return logits
        return self.pointer(logits, *hidden[:3], positions=hidden.positions, documents=hidden.documents,
                            cache=cache and cache.copied)

    def chunked_loss(self, hidden: Hidden, targets: Tensor) -> Tensor:
        """The loss, with the logits of `loss_chunk` positions at a time; they are made again for the gradient."""
        def total(part: Hidden, wanted: Tensor) -> Tensor:
            return self.loss.total(self.predict(part), wanted)

        parts = hidden.parts(targets, self.loss_chunk)
        totals = [checkpoint(total, part, wanted, use_reentrant=False) for part, wanted in parts]
        return torch.stack(totals).sum() / num_targets(targets)

    def make_cache(self, max_len: int) -> "Cache":
        """Room for the state of `max_len` tokens in each layer; pass it to every forward."""
        *layers, copied = [part and part.make_cache(max_len) for part in (
            *(getattr(block.mixer, "branch", None) for block in self.blocks), self.pointer)]
        return Cache(layers, copied)

    def init_weights(self) -> None:
        """Draw every weight anew, by rule: matrices by `init`, `out` by `out_init`, biases zero."""
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

    def dims(self) -> dict[str, int]:
        """The size of each axis that the flags fix, by its letter."""
        cfg = self.cfg
        sizes = {"d": cfg.dim, "v": cfg.padded_vocab_size}
        if cfg.mlp != "none":
            sizes["f"] = cfg.hidden_width
        if cfg.attends:
            sizes |= {"h": cfg.num_heads, "g": cfg.kv_heads, "p": cfg.head_width}
        return sizes

    def num_parameters(self) -> int:
        """All parameters, shared ones once."""
        return sum(p.numel() for p in self.parameters())


class Cache:
    """What each layer, and the pointer, keep of the `length` tokens seen so far; None = nothing."""

    def __init__(self, layers: list, copied):
        self.layers, self.copied, self.length = layers, copied, 0

    def keep_rows(self, rows: list[int], *, padding: int = 0) -> None:
        """Drop the other rows, and the first `padding` tokens, which none of those kept sees."""
        self.length -= padding
        for part in (*self.layers, self.copied):
            if part is not None:
                part.keep_rows(rows, padding=padding)


def _call(module: nn.Module, *args, **kwargs):
    return module(*args, **kwargs)


def _count_positions(tokens: Tensor, documents: Documents | None, cache: Cache | None) -> Tensor:
    """From the start of each document, or from the end of the cache on."""
    if documents is not None:
        return documents.positions()
    start = 0 if cache is None else cache.length
    return torch.arange(start, start + tokens.shape[1], device=tokens.device)


def flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of forward and backward for each token of a text of `seq_len`.

    Counted by running the model without data; the backward pass is twice the forward. Attention is
    counted in full, the masked half too, as is usual.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = Model(replace(cfg, attn_kernel="explicit") if cfg.attends else cfg)
        model(torch.zeros(1, seq_len, dtype=torch.int64))
    return 3 * counter.get_total_flops() / seq_len


def _std(linear: nn.Linear, cfg: ModelConfig) -> float:
    inputs, outputs = linear.in_features, linear.out_features
    return {"normal": cfg.init_std, "fan_in": inputs**-0.5,
            "xavier": (2 / (inputs + outputs)) ** 0.5}[cfg.init]


REAL_SIZE = 300_000_000  # parameters; a larger model is shown without weights


def main(command: tuple[Config, dict[str, Any]] | None = None) -> None:
    """Show what the command line says, which may have been read already."""
    cfg, _ = command or parse_command_line(sys.argv[1:], program="python model.py", description=__doc__)
    spelled = replace(cfg.model, vocab_size=cfg.model.vocab_size or cfg.tokenizer.vocab_size or 4096)
    if spelled.attends:  # its scores are worth seeing; the numbers are the fused kernel's
        spelled = replace(spelled, attn_kernel="explicit")
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
