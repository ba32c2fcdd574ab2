"""The numbers of gated recurrences: cells of channels, or of heads."""

from typing import Any, ClassVar

from configuration.checked import flags
from configuration.checks import require_positive


@flags
class MinGruConfig:
    """The numbers of mixer=min_gru."""

    expand: float = 2.0  # channels of the state / dim
    start: float = 1.0  # a channel keeps sigmoid(start) of its state from token to token at first

    def inner_dim(self, dim: int) -> int:
        return round(self.expand * dim)

    def axes(self, dim: int) -> dict[str, int]:
        return {"i": self.inner_dim(dim)}

    def __post_init__(self):
        require_positive(self, "expand")


@flags
class MinLstmConfig(MinGruConfig):
    """The numbers of mixer=min_lstm."""

    expand: float = 2.0  # channels of the state / dim
    start: float = 1.0  # a channel keeps sigmoid(start) of its state from token to token at first


@flags
class GruConfig:
    """The numbers of mixer=gru."""

    word: ClassVar[str] = "gru"  # of the mixer
    expand: float = 1.0  # channels of the state / dim
    num_heads: int = 1  # groups of channels, within which the gates read the state (h)

    def inner_dim(self, dim: int) -> int:
        return round(self.expand * dim)

    def axes(self, dim: int) -> dict[str, int]:
        return {"i": self.inner_dim(dim), "h": self.num_heads}

    def check_widths(self, layer: Any) -> None:
        """Raise ValueError if the heads do not divide the channels."""
        if self.inner_dim(layer.dim) % self.num_heads:
            raise ValueError(f"{self.word}.num_heads={self.num_heads} does not divide the "
                             f"{self.inner_dim(layer.dim)} channels of {self.word}.expand={self.expand} with "
                             f"dim={layer.dim}")

    def __post_init__(self):
        require_positive(self, "expand", "num_heads")


@flags
class LstmConfig(GruConfig):
    """The numbers of mixer=lstm."""

    word: ClassVar[str] = "lstm"
    expand: float = 1.0  # channels of the state / dim
    num_heads: int = 1  # groups of channels, within which the gates read the state (h)
    start: float = 1.0  # bias of the forget gates at first


@flags
class SlstmConfig:
    """The numbers of mixer=slstm."""

    num_heads: int = 4  # groups of channels, within which the gates read the state (h)
    conv_len: int = 4  # tokens that the convolution before the input and forget gates reads, its own included
    norm_eps: float = 1e-5  # of the norm of each head's output
    out_proj: bool = True  # map the output to the stream by a matrix, as other mixers do; off: as published

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "p": dim // self.num_heads}

    def check_widths(self, layer: Any) -> None:
        """Raise ValueError if the heads do not divide the channels."""
        if layer.dim % self.num_heads:
            raise ValueError(f"slstm.num_heads={self.num_heads} does not divide dim={layer.dim}")

    def __post_init__(self):
        require_positive(self, "num_heads", "conv_len", "norm_eps")


@flags
class RgLruConfig:
    """The numbers of mixer=rg_lru."""

    inner_dim: int | None = None  # channels of the state (i); None = dim
    num_heads: int | None = None  # groups of channels, within which the gates mix them; None = attention.num_heads
    conv_len: int = 4  # tokens that the convolution before the recurrence reads, its own included

    def inner_width(self, layer: Any) -> int:
        return self.inner_dim or layer.dim

    def heads(self, layer: Any) -> int:
        return self.num_heads or layer.attention.num_heads

    def axes(self, dim: int) -> dict[str, int]:
        return {"i": self.inner_dim or dim}

    def resized(self, factor: float) -> dict[str, int | None]:
        return {"inner_dim": self.inner_dim and max(1, round(self.inner_dim * factor))}

    def check_widths(self, layer: Any) -> None:
        """Raise ValueError if the heads do not divide the channels."""
        if self.inner_width(layer) % self.heads(layer):
            name = "attention.num_heads" if self.num_heads is None else "rg_lru.num_heads"
            width = "dim" if self.inner_dim is None else "rg_lru.inner_dim"
            raise ValueError(f"{name}={self.heads(layer)} does not divide {width}={self.inner_width(layer)}: give "
                             "rg_lru.num_heads or rg_lru.inner_dim")

    def __post_init__(self):
        require_positive(self, "inner_dim", "num_heads", "conv_len")
