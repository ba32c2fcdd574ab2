"""What flows through the blocks (Stream), and what all of them are told (Context)."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from modules.masks import Documents, Pattern, mask_of_source
from tools import LoggingModule


class Context(NamedTuple):
    """What every layer is told; made once per forward pass."""

    positions: Tensor  # (t,), or (b, t) if rows start at different positions; negative = padding
    documents: Documents | None = None  # of packed rows; None = each row is one text
    causal: bool = True  # False: a position also sees later ones
    source: Tensor | None = None  # (b, s, d), what cross-attention reads; None = what it has in its cache
    tokens: Tensor | None = None  # (b, t), the ids, for parts that read them besides the stream
    source_seen: Tensor | None = None  # (b or 1, 1, t or 1, s), True for what a query sees of it; None = all
    sight: Tensor | None = None  # (b or 1, 1, t, s), True for what a query may see; None = as `causal` says


class Source(NamedTuple):
    """What cross-attention reads, e.g. of an encoder: Model.encode makes one.

    Negative positions are padding, which nothing sees. With `documents`, those of a packed row that reads it see no
    other's; without, all of them see the whole source.
    """

    states: Tensor  # (b, s, d)
    positions: Tensor | None = None  # (s,) or (b, s); None = there is no padding
    documents: Tensor | None = None  # (b, s), as in the row that reads it
    losses: dict[str, Tensor] = {}  # auxiliary losses of its making, by name


def require_source(source: Source | None, *, is_read: bool, read_before: bool) -> None:
    """Raise ValueError unless a source is given exactly if layers read one, and no cache has what they read."""
    if not is_read and source is not None:
        raise ValueError("a source is given, and no layer has model.cross=attention to read it: leave it out")
    if is_read and not read_before and source is None:
        raise ValueError("model.cross=attention reads a source, and none is given: give e.g. "
                         "source=model.encode(tokens)")
    if is_read and read_before and source is not None:
        raise ValueError("a source is given, and the cache holds one: give it with the first tokens alone")


def make_context(
    tokens: Tensor, *, documents: Tensor | None, positions: Tensor | None, source: Source | None,
    num_cached: int | None, patterns: Iterable[Pattern], causal: bool, sight: Tensor | None = None,
) -> Context:
    """The context of tokens (b, t) that follow `num_cached` others; None = there is no cache.

    Positions default to those after the cache, or within the document. Raises ValueError for documents with a cache,
    and for a source with documents that is read by a row without.
    """
    if documents is not None and num_cached is not None:
        raise ValueError("documents and a cache do not go together: to continue a document, give it its own row")
    packed = None if documents is None else Documents.of(documents, patterns, causal=causal)
    if positions is None and packed is not None:
        positions = packed.positions()
    elif positions is None:
        start = num_cached or 0
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
    sight = None if sight is None else sight.view(-1, 1, *sight.shape[-2:])
    if source is None:
        return Context(positions, packed, causal, None, tokens, sight=sight)
    if source.documents is not None and packed is None:
        raise ValueError("a source with documents is for packed rows: give documents of the tokens too")
    return Context(positions, packed, causal, source.states, tokens,
                   mask_of_source(source.positions, source.documents, packed), sight)


class Stream(NamedTuple):
    """All that flows from block to block."""

    x: Tensor  # (b, t, d); a residual wiring may widen it to (b, t, n, d)
    losses: dict[str, Tensor] = {}  # auxiliary losses so far, scalars by name; parts add a new dictionary
    carried: dict[str, Tensor] = {}  # tensors for later layers, by name, e.g. the first layer's values

    def with_x(self, x: Tensor) -> "Stream":
        """The same stream with another x."""
        return Stream(x, self.losses, self.carried)  # a third of the time that _replace takes

    def add_loss(self, name: str, loss: Tensor) -> "Stream":
        """A stream with a loss added to those of this name."""
        return self._replace(losses=self.losses | {name: self.losses[name] + loss if name in self.losses else loss})

    def carry(self, **tensors: Tensor) -> "Stream":
        """A stream with tensors for later layers."""
        return self._replace(carried=self.carried | tensors)


class Carrying(LoggingModule):
    """A part that reads the stream or adds to it, e.g. an auxiliary loss.

    `forward(x, context, cache, stream) -> (y, stream)`; x (b, t, d) comes from its wiring, as for other parts.
    """
