"""The numbers of state space mixers: Mamba, Mamba-2 and Mamba-3."""

import math
from typing import Any, Literal

from configuration.checked import flags
from configuration.checks import require_between, require_factors, require_not_negative, require_positive
from configuration.recurrent.widths import heads_at

InnerNorms = Literal["none", "plain", "scaled"]
NormPlace = Literal["after_gate", "before_gate", "none"]


@flags
class MambaConfig:
    """The numbers of mixer=mamba."""

    expand: float = 2.0  # channels / dim
    state_dim: int = 16  # states of a channel (n)
    step_rank: int | None = None  # numbers that give the steps of time of all channels; None = dim / 16, rounded up
    conv_len: int = 4  # tokens of the convolution
    conv_bias: bool = True  # its bias
    bias: bool = False  # biases of the projections into the mixer and out of it
    norms: InnerNorms = "none"  # RMS norms of these, B and C: without scales as in Falcon Mamba, with as in Jamba
    norm_eps: float = 1e-6  # added to the mean square in them

    def inner_dim(self, dim: int) -> int:
        return round(self.expand * dim)

    def rank(self, dim: int) -> int:
        return math.ceil(dim / 16) if self.step_rank is None else self.step_rank

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"step_rank": self.rank(dim)}

    def axes(self, dim: int) -> dict[str, int]:
        return {"i": self.inner_dim(dim), "n": self.state_dim}

    def resized(self, factor: float) -> dict[str, Any]:
        return {"step_rank": None if self.step_rank is None else max(1, round(self.step_rank * factor))}

    def __post_init__(self):
        require_positive(self, "expand", "state_dim", "step_rank", "conv_len", "norm_eps")


@flags
class HeadsConfig:
    """The numbers that Mamba-2 and Mamba-3 share."""

    num_heads: int = 8  # heads (h), each with a decay of its own
    head_dim: int | None = None  # values of a head (p); None = 2 dim / num_heads, rounded
    state_dim: int = 64  # width of the keys and queries of a head (n), which are called B and C
    num_groups: int = 1  # groups of heads (g); those of one share B and C, in Mamba-3 but for the biases of each head
    norm_eps: float = 1e-5  # added to the mean square in the norm of the output; in Mamba-3 also in those of B and C

    def head_width(self, dim: int) -> int:
        return self.head_dim or max(1, round(2 * dim / self.num_heads))

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"head_dim": self.head_width(dim)}

    def axes(self, dim: int) -> dict[str, int]:
        width = self.head_width(dim)
        return {"h": self.num_heads, "p": width, "n": self.state_dim, "g": self.num_groups, "i": self.num_heads * width}

    def resized(self, factor: float) -> dict[str, Any]:
        """Heads, groups of them, and states as narrow as the heads."""
        num_heads, width, narrower = self.num_heads, self.head_dim, 1.0
        if self.head_dim is not None:  # else it follows the width of the model
            num_heads, width = heads_at(self.num_heads, self.head_dim, factor)
            narrower = width / self.head_dim
        return {"num_heads": num_heads, "head_dim": width, "num_groups": math.gcd(num_heads, self.num_groups),
                "state_dim": max(1, round(self.state_dim * narrower))}

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "state_dim", "num_groups", "norm_eps")
        if self.num_heads % self.num_groups:
            raise ValueError(f"num_groups={self.num_groups} does not divide num_heads={self.num_heads}")


@flags
class Mamba2Config(HeadsConfig):
    """The numbers of mixer=mamba2."""

    conv_len: int = 4  # tokens of the convolution of values, B and C
    conv_bias: bool = True  # its bias
    bias: bool = False  # biases of the projections into the mixer and out of it
    norm: NormPlace = "after_gate"  # the RMS norm of the output, of each group: after the gate, before it, or none
    min_step: float = 0.0  # smallest step of time of a head, in which its state decays and a token is added
    max_step: float | None = None  # largest one; None = no limit
    scales: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)  # constant factors on the projections z (the gate), x, B, C and dt, as in Falcon-H1

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "conv_len", "max_step")
        require_factors(self, "scales", number=5)
        require_not_negative(self, "min_step")
        if self.max_step is not None and self.max_step <= self.min_step:
            raise ValueError(f"max_step={self.max_step} must be above min_step={self.min_step}")


@flags
class Mamba3Config(HeadsConfig):
    """The numbers of mixer=mamba3."""

    turned: float = 0.5  # fraction of a key and query that turns from token to token
    norm: bool = False  # an RMS norm of each head's output, before its gate

    @property
    def num_angles(self) -> int:
        return int(self.state_dim * self.turned) // 2

    def __post_init__(self):
        super().__post_init__()
        require_between(self, "turned")
        if self.num_angles == 0:
            raise ValueError(f"turned={self.turned} of state_dim={self.state_dim} is no pair of channels")
