"""The numbers of mixers with several parts: Megalodon, RWKV-7, and short convolutions."""

from typing import Any

from configuration.checked import flags
from configuration.checks import require_positive
from configuration.recurrent.widths import heads_at


@flags
class CemaConfig:
    """The numbers of mixer=cema."""

    state_dim: int = 16  # moving averages of a channel (n)
    num_heads: int = 1  # heads (h) of the attention within chunks
    qk_dim: int | None = None  # width of the queries, and of the keys, of all heads; None = dim / 4
    value_dim: int | None = None  # width of the values of all heads (i); None = 2 dim
    chunk: int = 2048  # tokens of a chunk: a query attends within its own
    norm_groups: int = 4  # groups of channels whose statistics, over all tokens so far, normalise the input
    norm_eps: float = 1e-5  # of its norms

    def qk_width(self, dim: int) -> int:
        pairs = 2 * self.num_heads
        return max(pairs, dim // 4 // pairs * pairs) if self.qk_dim is None else self.qk_dim

    def value_width(self, dim: int) -> int:
        return max(1, 2 * dim // self.num_heads) * self.num_heads if self.value_dim is None else self.value_dim

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.state_dim, "i": self.value_width(dim)}

    def resized(self, factor: float) -> dict[str, int | None]:
        num_heads = max(1, round(self.num_heads * factor))
        unit = 8 * num_heads
        widths = {name: width and max(unit, unit * round(width * factor / unit)) for name, width in (
            ("qk_dim", self.qk_dim), ("value_dim", self.value_dim))}
        return widths | {"num_heads": num_heads, "norm_groups": min(self.norm_groups, 8)}  # 8 divides any width

    def check_widths(self, cfg: Any) -> None:
        """Raise ValueError if the groups or heads do not divide the widths."""
        if cfg.dim % self.norm_groups:
            raise ValueError(f"cema.norm_groups={self.norm_groups} does not divide dim={cfg.dim}: choose a divisor")
        for name in ("qk_dim", "value_dim"):
            if (getattr(self, name) or 0) % self.num_heads:
                raise ValueError(f"cema.num_heads={self.num_heads} does not divide cema.{name}={getattr(self, name)}: "
                                 "choose a divisor")

    def __post_init__(self):
        require_positive(self, "state_dim", "num_heads", "qk_dim", "value_dim", "chunk", "norm_groups", "norm_eps")


@flags
class Rwkv7Config:
    """The numbers of mixer=rwkv7."""

    num_heads: int = 4  # heads (h), each with a state
    head_dim: int | None = None  # width of a head's keys and values (n); None = dim / num_heads, rounded down
    decay_rank: int | None = None  # numbers that a token's decays come from; None = 2.5 sqrt(dim), in steps of 32
    rate_rank: int | None = None  # numbers for how much of what it reads it takes out; None = as decay_rank
    value_rank: int | None = None  # numbers for the share of the first layer's values; None = 1.7 sqrt(dim), likewise
    gate_rank: int | None = None  # numbers that its gate comes from; None = 5 sqrt(dim), likewise
    norm_eps: float = 64e-5  # of the norm of each head's output

    def width(self, dim: int) -> int:
        """The width of a head."""
        return max(1, dim // self.num_heads) if self.head_dim is None else self.head_dim

    def ranks(self, dim: int) -> dict[str, int]:
        usual = {"decay": 2.5, "rate": 2.5, "value": 1.7, "gate": 5.0}
        return {name: getattr(self, f"{name}_rank") or max(32, 32 * round(factor * dim**0.5 / 32))
                for name, factor in usual.items()}

    def axes(self, dim: int) -> dict[str, int]:
        width = self.width(dim)
        return {"h": self.num_heads, "n": width, "i": self.num_heads * width}

    def resized(self, factor: float) -> dict[str, int | None]:
        ranks = {name: rank and max(8, 8 * round(rank * factor**0.5 / 8)) for name, rank in (
            (name, getattr(self, name)) for name in ("decay_rank", "rate_rank", "value_rank", "gate_rank"))}
        heads = (self.num_heads, None) if self.head_dim is None else heads_at(self.num_heads, self.head_dim, factor)
        return ranks | dict(zip(("num_heads", "head_dim"), heads, strict=True))

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "decay_rank", "rate_rank", "value_rank", "gate_rank",
                         "norm_eps")


@flags
class ShortConvConfig:
    """The numbers of mixer=short_conv."""

    length: int = 3  # tokens of the convolution, the present one included
    bias: bool = False  # biases of the convolution and of all projections

    def axes(self, dim: int) -> dict[str, int]:
        return {}

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"length={self.length} has no earlier token: use 2 or more")
