"""The numbers of recurrent mixers: a group for each word of `mixer`, as ModelConfig has them.

A preset of a published model states every number of its mixer, so that editing a default here never changes it. The
method `axes` gives the sizes of axes by their letters, for traces; see modules/__init__.py. `resized`, if there is one,
gives the numbers that change with the width of a model, at another width: see families/sizing.py. `spelled_out`, if
there is one, gives what None stands for.
"""

import math
from dataclasses import fields
from typing import Any, Literal

from configuration.checked import flags
from configuration.checks import require_between, require_not_negative, require_positive
from configuration.delta import DeltaNetConfig, GatedDeltaConfig, Gdn2Config, KdaConfig

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
class Mamba2Config:
    """The numbers of mixer=mamba2."""

    num_heads: int = 8  # heads (h), each with a decay of its own
    head_dim: int | None = None  # values of a head (p); None = 2 dim / num_heads, rounded
    state_dim: int = 64  # width of the keys and queries of a head (n), which are called B and C
    num_groups: int = 1  # groups of heads (g); those of one share B and C
    conv_len: int = 4  # tokens of the convolution of values, B and C
    conv_bias: bool = True  # its bias
    bias: bool = False  # biases of the projections into the mixer and out of it
    norm: NormPlace = "after_gate"  # the RMS norm of the output, of each group: after the gate, before it, or none
    norm_eps: float = 1e-5  # added to the mean square in it
    min_step: float = 0.0  # smallest step of time of a head, in which its state decays and a token is added
    max_step: float | None = None  # largest one; None = no limit

    def head_width(self, dim: int) -> int:
        return self.head_dim or max(1, round(2 * dim / self.num_heads))

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"head_dim": self.head_width(dim)}

    def axes(self, dim: int) -> dict[str, int]:
        width = self.head_width(dim)
        return {"h": self.num_heads, "p": width, "n": self.state_dim, "g": self.num_groups, "i": self.num_heads * width}

    def resized(self, factor: float) -> dict[str, Any]:
        return resized_heads(self, factor)

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "state_dim", "num_groups", "conv_len", "norm_eps", "max_step")
        require_not_negative(self, "min_step")
        check_groups(self)
        if self.max_step is not None and self.max_step <= self.min_step:
            raise ValueError(f"max_step={self.max_step} must be above min_step={self.min_step}")


@flags
class Mamba3Config:
    """The numbers of mixer=mamba3."""

    num_heads: int = 8  # heads (h), each with a decay of its own
    head_dim: int | None = None  # values of a head (p); None = 2 dim / num_heads, rounded
    state_dim: int = 64  # width of the keys and queries of a head (n), which are called B and C
    num_groups: int = 1  # groups of heads (g); those of one share B and C, but for the biases of each head
    turned: float = 0.5  # fraction of a key and query that turns from token to token
    norm: bool = False  # an RMS norm of each head's output, before its gate
    norm_eps: float = 1e-5  # added to the mean square in it, and in the norms of B and C

    @property
    def num_angles(self) -> int:
        return int(self.state_dim * self.turned) // 2

    def head_width(self, dim: int) -> int:
        return self.head_dim or max(1, round(2 * dim / self.num_heads))

    def spelled_out(self, dim: int) -> dict[str, int]:
        return {"head_dim": self.head_width(dim)}

    def axes(self, dim: int) -> dict[str, int]:
        width = self.head_width(dim)
        return {"h": self.num_heads, "p": width, "n": self.state_dim, "g": self.num_groups, "i": self.num_heads * width}

    def resized(self, factor: float) -> dict[str, Any]:
        return resized_heads(self, factor)

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "state_dim", "num_groups", "norm_eps")
        require_between(self, "turned")
        check_groups(self)
        if self.num_angles == 0:
            raise ValueError(f"turned={self.turned} of state_dim={self.state_dim} is no pair of channels")

FeatureMap = Literal["elu", "taylor"]


def part_of(width: float, num_heads: int) -> int:
    """The width of a head, if that of all is about `width`."""
    return max(1, round(width / num_heads))


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
class GruConfig:
    """The numbers of mixer=gru."""

    expand: float = 1.0  # channels of the state / dim
    num_heads: int = 1  # groups of channels, within which the gates read the state (h)

    def inner_dim(self, dim: int) -> int:
        return round(self.expand * dim)

    def axes(self, dim: int) -> dict[str, int]:
        return {"i": self.inner_dim(dim), "h": self.num_heads}

    def check_widths(self, layer: Any) -> None:
        """Raise ValueError if the heads do not divide the channels."""
        if self.inner_dim(layer.dim) % self.num_heads:
            raise ValueError(f"{layer.mixer}.num_heads={self.num_heads} does not divide the "
                             f"{self.inner_dim(layer.dim)} channels of {layer.mixer}.expand={self.expand} with "
                             f"dim={layer.dim}")

    def __post_init__(self):
        require_positive(self, "expand", "num_heads")


@flags
class LstmConfig(GruConfig):
    """The numbers of mixer=lstm."""

    expand: float = 1.0  # channels of the state / dim
    num_heads: int = 1  # groups of channels, within which the gates read the state (h)
    start: float = 1.0  # bias of the forget gates at first


@flags
class SlstmConfig:
    """The numbers of mixer=slstm."""

    num_heads: int = 4  # groups of channels, within which the gates read the state (h)
    conv_len: int = 4  # tokens that the convolution before the input and forget gates reads, its own included
    norm_eps: float = 1e-5  # of the norm of each head's output

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "p": dim // self.num_heads}

    def check_widths(self, layer: Any) -> None:
        """Raise ValueError if the heads do not divide the channels."""
        if layer.dim % self.num_heads:
            raise ValueError(f"slstm.num_heads={self.num_heads} does not divide dim={layer.dim}")

    def __post_init__(self):
        require_positive(self, "num_heads", "conv_len", "norm_eps")


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
        if self.gate_cap > 60:
            raise ValueError(f"gate_cap={self.gate_cap} is above 60: sums of such weights are too large for float32")


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

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.key_dim(dim), "p": self.value_dim(dim)}

    def __post_init__(self):
        require_positive(self, "num_heads", "expand_v", "first_power", "norm_eps")


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


def heads_at(num_heads: int, head_dim: int, factor: float) -> tuple[int, int]:
    """The number of heads and their width if all of them together are `factor` as wide: narrower if they are few."""
    inner = num_heads * head_dim * factor
    width = min(head_dim, next(usual for limit, usual in ((128, 16), (384, 32), (1536, 64), (math.inf, 128))
                               if inner < limit))
    return max(1, round(inner / width)), width


def resized_heads(own: Mamba2Config | Mamba3Config, factor: float) -> dict[str, Any]:
    """The numbers of heads with B and C if all of them together are `factor` as wide."""
    num_heads, width, narrower = own.num_heads, own.head_dim, 1.0
    if own.head_dim is not None:  # else it follows the width of the model
        num_heads, width = heads_at(own.num_heads, own.head_dim, factor)
        narrower = width / own.head_dim
    return {"num_heads": num_heads, "head_dim": width, "num_groups": math.gcd(num_heads, own.num_groups),
            "state_dim": max(1, round(own.state_dim * narrower))}


def check_groups(own: Mamba2Config | Mamba3Config) -> None:
    if own.num_heads % own.num_groups:
        raise ValueError(f"num_groups={own.num_groups} does not divide num_heads={own.num_heads}")


# word of `mixer` -> its group
RECURRENT = {
    "cema": CemaConfig,
    "deltanet": DeltaNetConfig,
    "gated_delta": GatedDeltaConfig,
    "gdn2": Gdn2Config,
    "gla": GlaConfig,
    "gru": GruConfig,
    "hgrn2": Hgrn2Config,
    "kda": KdaConfig,
    "lightning": LightningConfig,
    "linear": LinearConfig,
    "lstm": LstmConfig,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
    "mamba3": Mamba3Config,
    "min_gru": MinGruConfig,
    "min_lstm": MinLstmConfig,
    "mlstm": MlstmConfig,
    "retnet": RetnetConfig,
    "rg_lru": RgLruConfig,
    "rwkv7": Rwkv7Config,
    "short_conv": ShortConvConfig,
    "slstm": SlstmConfig,
}

# the defaults as they stand here, for the plain choices in model_rules.py
PLAIN_RECURRENT = {f"{word}.{flag.name}": flag.default for word, group in RECURRENT.items() for flag in fields(group)}
