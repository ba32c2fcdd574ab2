"""The numbers of linear attentions, whose state is a matrix for each head."""

import math
from typing import Literal

from configuration.checked import flags
from configuration.checks import require_positive
from configuration.recurrent.widths import heads_at, part_of

FeatureMap = Literal["elu", "taylor"]


@flags
class GlaConfig:
    """The numbers of mixer=gla."""

    num_heads: int = 4  # heads (h)
    expand_k: float = 0.5  # width of all queries, and of all keys / dim; that of a head (n) is rounded
    expand_v: float = 1.0  # width of all values / dim; that of a head (p) is rounded
    rank: int = 16  # numbers of a token from which the decays of all its key channels come
    divisor: float = 16.0  # of the log decays: what is larger forgets more slowly
    norm_eps: float = 1e-5  # of the norm of each head

    def key_dim(self, dim: int) -> int:
        return part_of(self.expand_k * dim, self.num_heads)

    def value_dim(self, dim: int) -> int:
        return part_of(self.expand_v * dim, self.num_heads)

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.key_dim(dim), "p": self.value_dim(dim)}

    def __post_init__(self):
        require_positive(self, "num_heads", "expand_k", "expand_v", "rank", "divisor", "norm_eps")


@flags
class Hgrn2Config:
    """The numbers of mixer=hgrn2."""

    num_heads: int = 4  # heads (h)
    key_dim: int | None = None  # width of a head's queries and forget gates (n); None = dim / num_heads, rounded
    head_dim: int | None = None  # width of a head's values (p); None = dim / num_heads, rounded
    floor: float = 0.0  # what a channel keeps at least of its state from token to token
    norm_eps: float = 1e-5  # of the norm over all heads

    def width(self, dim: int) -> int:
        return self.head_dim or max(1, round(dim / self.num_heads))

    def key_width(self, dim: int) -> int:
        return self.key_dim or max(1, round(dim / self.num_heads))

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.key_width(dim), "p": self.width(dim)}

    def __post_init__(self):
        require_positive(self, "num_heads", "key_dim", "head_dim", "norm_eps")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor} must be from 0 to below 1: a channel that keeps all learns nothing")


@flags
class LightningConfig:
    """The numbers of mixer=lightning."""

    num_heads: int = 4  # heads (h)
    head_dim: int | None = None  # width of a head's queries, keys and values; None = dim / num_heads, rounded
    by_depth: bool = True  # slower decays in deeper layers, hardly any in the last; off: in all those of the first
    norm_eps: float = 1e-6  # of the norm over all heads

    def width(self, dim: int) -> int:
        return self.head_dim or part_of(dim, self.num_heads)

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.width(dim), "p": self.width(dim)}

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"head_dim": self.width(dim)}

    def resized(self, factor: float) -> dict[str, int | None]:
        followed = self.head_dim is None  # the width of the model
        num_heads, width = (self.num_heads, None) if followed else heads_at(self.num_heads, self.head_dim, factor)
        return {"num_heads": num_heads, "head_dim": width}

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "norm_eps")


@flags
class LinearConfig:
    """The numbers of mixer=linear."""

    num_heads: int = 4  # heads (h)
    feature_map: FeatureMap = "elu"  # what queries and keys become: elu(x) + 1, arXiv:2006.16236; or numbers whose product is the Taylor series of exp(q.k / sqrt(key_dim)) up to the square, arXiv:2402.18668
    key_dim: int | None = None  # width of a head's queries and keys before that; None = 16 if feature_map=taylor, else dim / num_heads, rounded
    eps: float = 1e-6  # added to the sum of the weights, by which a head's output is divided

    def query_dim(self, dim: int) -> int:
        return self.key_dim or (16 if self.feature_map == "taylor" else self.value_dim(dim))

    def value_dim(self, dim: int) -> int:
        return part_of(dim, self.num_heads)

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"key_dim": self.query_dim(dim)}

    def axes(self, dim: int) -> dict[str, int]:
        n = self.query_dim(dim)
        features = 1 + n + n * (n + 1) // 2 if self.feature_map == "taylor" else n
        return {"h": self.num_heads, "n": features, "p": self.value_dim(dim)}

    def __post_init__(self):
        require_positive(self, "num_heads", "key_dim", "eps")


@flags
class MlstmConfig:
    """The numbers of mixer=mlstm."""

    num_heads: int = 4  # heads (h)
    key_dim: int | None = None  # width of a head's queries and keys (n); None = dim / num_heads / 2, rounded
    head_dim: int | None = None  # width of a head's values (p); None = dim / num_heads, rounded
    gate_cap: float = 15.0  # c tanh(gate / c): the largest logarithm of an input gate
    input_start: float = -10.0  # logarithm of the input gates at first
    eps: float = 1e-6  # added to what divides the output, times the largest weight in it
    norm_eps: float = 1e-6  # of the norm of each head's output

    def width(self, dim: int) -> int:
        return self.head_dim or max(1, round(dim / self.num_heads))

    def key_width(self, dim: int) -> int:
        return self.key_dim or max(1, round(dim / self.num_heads / 2))

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.key_width(dim), "p": self.width(dim)}

    def resized(self, factor: float) -> dict[str, int | None]:
        if self.key_dim is None or self.head_dim is None:
            return {"num_heads": self.num_heads, "key_dim": None, "head_dim": None}
        num_heads, width = heads_at(self.num_heads, self.head_dim, factor)
        return {"num_heads": num_heads, "head_dim": width,
                "key_dim": max(1, round(width * self.key_dim / self.head_dim))}

    def __post_init__(self):
        require_positive(self, "num_heads", "key_dim", "head_dim", "gate_cap", "eps", "norm_eps")


@flags
class MlstmV1Config:
    """The numbers of mixer=mlstm_v1."""

    num_heads: int = 4  # heads (h)
    expand: float = 2.0  # channels (i) / dim, rounded to as many as the heads and the blocks share evenly
    block_dim: int = 4  # channels of the blocks within which queries, keys and values mix them
    conv_len: int = 4  # tokens that the convolution before queries and keys reads, its own included
    eps: float = 1e-6  # added to what divides the output, times the largest weight in it
    norm_eps: float = 1e-5  # of the norm of each head's output

    def inner_dim(self, dim: int) -> int:
        step = math.lcm(self.num_heads, self.block_dim)
        return step * part_of(self.expand * dim, step)

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "i": self.inner_dim(dim), "n": self.inner_dim(dim) // self.num_heads}

    def __post_init__(self):
        require_positive(self, "num_heads", "expand", "block_dim", "conv_len", "eps", "norm_eps")


@flags
class RetnetConfig:
    """The numbers of mixer=retnet."""

    num_heads: int = 4  # heads (h)
    expand_v: float = 2.0  # width of all values / dim; that of a head (p) is rounded
    first_power: float = 5.0  # head i, from 0, forgets 2^-(this + i) of its state at each token
    norm_eps: float = 1e-5  # of the norm of each head

    def key_dim(self, dim: int) -> int:
        return 2 * part_of(dim / 2, self.num_heads)  # pairs, which rope rotates

    def value_dim(self, dim: int) -> int:
        return part_of(self.expand_v * dim, self.num_heads)

    def axes(self, dim: int) -> dict[str, int | tuple[int, int]]:
        keys, values = self.key_dim(dim), self.value_dim(dim)
        return {"h": self.num_heads, "n": keys, "p": (keys, values)}  # rope calls what it rotates p

    def __post_init__(self):
        require_positive(self, "num_heads", "expand_v", "first_power", "norm_eps")
