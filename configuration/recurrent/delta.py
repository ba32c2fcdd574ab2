"""The numbers of mixers by the delta rule: a group for each word of `mixer`; see the package."""

from typing import Any

from configuration.checked import flags
from configuration.checks import require_positive
from configuration.recurrent.widths import heads_at


@flags
class DeltaRuleConfig:
    """The numbers that all of them have."""

    num_heads: int = 4  # heads of values (h), each with a state of its own
    key_dim: int | None = None  # width of a head's queries and keys (n); None = dim / num_heads, rounded
    value_dim: int | None = None  # width of a head's values (p); None = key_dim
    conv_len: int | None = 4  # tokens of the convolution of queries, keys and values; None = there is none
    neg_eigenvalues: bool = False  # erase up to twice what a key holds: a state can change its sign. arXiv:2411.12537
    norm_eps: float = 1e-5  # of the norm of each head's output

    @property
    def key_heads(self) -> int:
        """Heads of queries and keys."""
        return self.num_heads

    def key_width(self, dim: int) -> int:
        return self.key_dim or max(1, round(dim / self.num_heads))

    def value_width(self, dim: int) -> int:
        return self.value_dim or self.key_width(dim)

    def widths(self, dim: int) -> tuple[int, int, int]:
        """Of the queries, the keys and the values of all heads, and of all updates of a token."""
        keys = self.key_heads * self.key_width(dim)
        return keys, keys, self.num_heads * self.value_width(dim)

    def axes(self, dim: int) -> dict[str, int]:
        return {"h": self.num_heads, "n": self.key_width(dim), "p": self.value_width(dim)}

    def spelled_out(self, dim: int) -> dict[str, int]:
        """The numbers that follow from others where they are None."""
        return {"key_dim": self.key_width(dim), "value_dim": self.value_width(dim)}

    def resized(self, factor: float) -> dict[str, Any]:
        """The numbers of heads that are `factor` as wide together; those whose width follows dim stay as many."""
        heads, width = self.heads_at(factor)
        return {"num_heads": heads * self.num_heads // self.key_heads, "key_dim": width,
                "value_dim": self.narrower(self.value_dim, factor)}

    def narrower(self, width: int | None, factor: float) -> int | None:
        """Another width of a head, as much narrower as its keys become."""
        keys = self.heads_at(factor)[1]
        return width and max(1, round(width * (factor if keys is None else keys / self.key_dim)))

    def heads_at(self, factor: float) -> tuple[int, int | None]:
        """The heads of keys and their width."""
        return (self.key_heads, None) if self.key_dim is None else heads_at(self.key_heads, self.key_dim, factor)

    def __post_init__(self):
        require_positive(self, "num_heads", "key_dim", "value_dim", "norm_eps")
        if self.conv_len is not None and self.conv_len < 2:
            raise ValueError(f"conv_len={self.conv_len} has no earlier token: use 2 or more, or None")


@flags
class DeltaNetConfig(DeltaRuleConfig):
    """The numbers of mixer=deltanet."""

    num_key_heads: int | None = None  # heads of queries and keys (g), shared by heads of values; None = num_heads
    num_updates: int = 1  # keys and values of a token, each an update (DeltaProduct). arXiv:2502.10297
    gate: bool = False  # multiply the output by silu(W x)

    @property
    def key_heads(self) -> int:
        return self.num_key_heads or self.num_heads

    def widths(self, dim: int) -> tuple[int, int, int]:
        queries, keys, values = super().widths(dim)
        return queries, self.num_updates * keys, self.num_updates * values

    def axes(self, dim: int) -> dict[str, int]:
        return super().axes(dim) | {"g": self.key_heads}

    def spelled_out(self, dim: int) -> dict[str, int]:
        return super().spelled_out(dim) | {"num_key_heads": self.key_heads}

    def resized(self, factor: float) -> dict[str, Any]:
        found = super().resized(factor)
        return found | {"num_key_heads": found["num_heads"] * self.key_heads // self.num_heads}

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "num_key_heads", "num_updates")
        if self.num_heads % self.key_heads:
            raise ValueError(f"num_key_heads={self.num_key_heads} does not divide num_heads={self.num_heads}")


@flags
class GatedDeltaConfig(DeltaNetConfig):
    """The numbers of mixer=gated_delta."""

    gate: bool = True  # multiply the output by silu(W x)
    step_bias: float | None = None  # start of the decay's bias, 1 in Qwen3-Next; None = drawn, as in Mamba


@flags
class KdaConfig(DeltaRuleConfig):
    """The numbers of mixer=kda."""

    rank: int | None = None  # numbers between the two matrices of the decay, and of the gate; None = value_dim
    gate_bias: bool = False  # bias of the gate
    decay_bound: float | None = None  # a token keeps e^-bound at least, 5 in GLM-5-Next; None = no bound

    def inner_rank(self, dim: int) -> int:
        return self.rank or self.value_width(dim)

    def spelled_out(self, dim: int) -> dict[str, int]:
        return super().spelled_out(dim) | {"rank": self.inner_rank(dim)}

    def resized(self, factor: float) -> dict[str, Any]:
        return super().resized(factor) | {"rank": self.narrower(self.rank, factor)}

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "rank", "decay_bound")


@flags
class Gdn2Config(KdaConfig):
    """The numbers of mixer=gdn2."""

    gate_bias: bool = True  # bias of the gate
