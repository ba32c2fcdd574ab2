"""What flows through the blocks, and what all of them are told."""

from typing import NamedTuple

from torch import Tensor

from modules.masks import Documents
from tools import LoggingModule


class Context(NamedTuple):
    """What every layer is told; made once in a forward pass."""

    positions: Tensor  # (t,), or (b, t) if rows start at different places; negative = padding
    documents: Documents | None = None  # of packed rows; None = each row is one text
    causal: bool = True  # False: a position sees those after it too
    source: Tensor | None = None  # (b, s, d), what cross-attention reads


class Stream(NamedTuple):
    """What flows from block to block: all of it is here, nothing is kept aside."""

    x: Tensor  # (b, t, d); a residual wiring may widen it to (b, t, n, d)
    losses: dict[str, Tensor] = {}  # auxiliary losses so far, scalars by name; parts add a new dictionary
    carried: dict[str, Tensor] = {}  # what later layers read by name, such as the first layer's values

    def with_x(self, x: Tensor) -> "Stream":
        """The same stream with another x."""
        return Stream(x, self.losses, self.carried)  # a third of the time that _replace takes

    def add_loss(self, name: str, loss: Tensor) -> "Stream":
        """With a loss added to those of this name."""
        return self._replace(losses=self.losses | {name: self.losses[name] + loss if name in self.losses else loss})

    def carry(self, **tensors: Tensor) -> "Stream":
        """With tensors for later layers."""
        return self._replace(carried=self.carried | tensors)


class Carrying(LoggingModule):
    """A part that reads the stream or adds to it, such as an auxiliary loss.

    `forward(x, context, cache, stream) -> (y, stream)`; x (b, t, d) is what its wiring gives it, as to other parts.
    """
