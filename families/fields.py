"""The fields of a Hugging Face config.json, and the flags that they stand for: read and written by one table.

A part of the table reads some fields into flags and writes flags into these fields. A flag that differs between layers
is read as a `PerLayer`, the value of each. No part checks that it can express a model: `Family.misfits` writes, reads
back and compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isclose
from typing import Any

from config import ModelConfig, get

OMIT = object()  # a field that is not written
Theirs = Mapping[str, Any]

QKV_BIASES = tuple(f"attention.{name}_bias" for name in "qkv")
ATTENTION_BIASES = (*QKV_BIASES, "attention.out_bias")
# their words for activations; of several words for one, the first is written unless a family says otherwise
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu",
               "gelu_python": "gelu", "relu": "relu", "relu2": "relu2", "silu": "silu", "swish": "silu",
               "mish": "mish", "xielu": "xielu", "quick_gelu": "quick_gelu"}


class PerLayer(tuple):
    """The value of a flag in each layer."""


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class OneField:
    """A part of the table with one field, whose absence sets no flag."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def defaults(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Field(OneField):
    """One field that stands for one flag, or for several that are equal. `default` is what its absence means."""

    flags: str | tuple[str, ...]
    default: Any
    convert: Callable[[Any], Any] = same
    from_config: Callable[[ModelConfig], Any] | None = None  # None = the first flag, as it is

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.name: self.default}

    @property
    def own_flags(self) -> tuple[str, ...]:
        return (self.flags,) if isinstance(self.flags, str) else self.flags

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return dict.fromkeys(self.own_flags, self.convert(theirs[self.name]))

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        value = get(cfg, self.own_flags[0]) if self.from_config is None else self.from_config(cfg)
        return {} if value is OMIT else {self.name: value}


@dataclass(frozen=True)
class Implied(OneField):
    """One field that says again what others say, and must: `wanted` gives its value from their other fields."""

    wanted: Callable[[Theirs], Any]
    from_config: Callable[[ModelConfig], Any]

    def read(self, theirs: Theirs) -> dict[str, Any]:
        wanted = self.wanted(theirs)
        if theirs.get(self.name) not in (None, wanted):
            raise ValueError(f"{self.name}={theirs[self.name]} is not {wanted}, as the other fields say: that is not "
                             "known here")
        return {}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: self.from_config(cfg)}


# ---- fields that many families have ----


def activation(
    name: str, default: str, *, tanh: str = "gelu_pytorch_tanh", words: Mapping[str, str] = ACTIVATIONS,
) -> Field:
    """The word of the MLP's nonlinearity, of `words`: theirs -> ours; `tanh` is the one to write for gelu_tanh."""
    written = {ours: theirs for theirs, ours in reversed(words.items())} | {"gelu_tanh": tanh}

    def convert(word: str) -> str:
        if word not in words:
            raise ValueError(f"{name}={word!r} is not known here: use one of {', '.join(words)}")
        return words[word]

    return Field(name, "activation", default, convert, lambda cfg: written.get(cfg.activation, OMIT))


def vocabulary(default: int) -> Field:
    def convert(size: int | None) -> int:
        if size is None:
            raise ValueError("vocab_size=None is not a number of tokens")
        return size

    return Field("vocab_size", "vocab_size", default, convert, lambda cfg: cfg.padded_vocab_size)


def hidden(name: str, default: int | None) -> Field:
    """The width of the MLP."""
    return Field(name, "hidden_dim", default, from_config=lambda cfg: cfg.hidden_width)


def kv_heads(default: int | None = None) -> Field:
    return Field("num_key_value_heads", "attention.num_kv_heads", default,
                 from_config=lambda cfg: cfg.attention.kv_heads)


def head_dim(default: int | None = None) -> Field:
    return Field("head_dim", "attention.head_dim", default, from_config=lambda cfg: cfg.head_width)


def unusual_head_dim() -> Field:
    """head_dim of a family whose configurations lack it, unless it is not dim / num_heads."""
    def write(cfg: ModelConfig) -> Any:
        return OMIT if cfg.head_width * cfg.attention.num_heads == cfg.dim else cfg.head_width

    return Field("head_dim", "attention.head_dim", None, from_config=write)


def implied_head_dim() -> Implied:
    """head_dim of a family that computes only with dim / num_heads."""
    return Implied("head_dim", lambda theirs: theirs["hidden_size"] // theirs["num_attention_heads"],
                   lambda cfg: cfg.dim // cfg.attention.num_heads)


def power(name: str, default: float) -> Field:
    """A number n for which the scores are multiplied by n ** -0.5."""
    def write(cfg: ModelConfig) -> float:
        number = scale_of(cfg) ** -2
        return round(number) if isclose(number, round(number), rel_tol=1e-9) else number

    return Field(name, "attention.scale", default, lambda number: number**-0.5, write)


def scale_of(cfg: ModelConfig) -> float:
    """The factor on the scores, if it is not given too."""
    return cfg.head_width**-0.5 if cfg.attention.scale is None else cfg.attention.scale


def llama_sizes(
    *, vocab: int = 32000, dim: int = 4096, hidden_dim: int | None = 11008, layers: int = 32, heads: int = 32,
    kv: int | None = None, context: int = 2048, dropout: float = 0.0, grouped: bool = True,
) -> tuple[Field, ...]:
    """The sizes, as Llama and most later families call them, with the defaults of a family.

    Without `grouped`, each query head has a key/value head of its own. Another part reads the width of the MLP if
    hidden_dim is None.
    """
    return (vocabulary(vocab), Field("hidden_size", "dim", dim),
            *([hidden("intermediate_size", hidden_dim)] if hidden_dim else []),
            Field("num_hidden_layers", "num_layers", layers),
            Field("num_attention_heads", "attention.num_heads", heads), *([kv_heads(kv)] if grouped else []),
            Field("max_position_embeddings", "max_seq_len", context),
            Field("attention_dropout", "attention.dropout", dropout))


def switch(name: str, flag: str, default: bool, *, on: Any, off: Any) -> Field:
    """A field that is true for one value of a flag and false for another; other values have none."""
    return Field(name, flag, default, lambda given: on if given else off,
                 lambda cfg: {on: True, off: False}.get(get(cfg, flag), OMIT))


def tied(default: bool) -> Field:
    return Field("tie_word_embeddings", "tie_embeddings", default)
