"""Families whose layers have different mixers: fields of config.json, and rules for the weights of delta rules."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from einops import pack, rearrange

from config import LayerConfig, ModelConfig
from families.fields import PerLayer, Theirs
from families.layers import FULL
from families.weights import Same, Taps, renamed

LINEAR, DECAY = "linear_attention", "mixer.branch.decay"


def layer_with(cfg: ModelConfig, mixer: str) -> LayerConfig:
    """The flags of the first layer with a mixer, or of the first layer if none has it."""
    return next((layer for layer in map(cfg.at, range(cfg.num_layers)) if layer.mixer == mixer), cfg.at(0))


@dataclass(frozen=True)
class MixerTypes:
    """layer_types: for each layer linear_attention or full_attention, which have the flags `linear` and `full`.

    Without it `is_full` says which layers are full; `others` are the fields that it reads.
    """

    linear: Mapping[str, Any]
    full: Mapping[str, Any]
    is_full: Callable[[Theirs, int], bool]
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return ("layer_types", *self.others)

    @property
    def defaults(self) -> dict[str, Any]:
        return {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number = theirs["num_hidden_layers"]
        types = theirs.get("layer_types") or [FULL if self.is_full(theirs, i) else LINEAR for i in range(number)]
        if unknown := [kind for kind in types if kind not in (LINEAR, FULL)]:
            raise ValueError(f"layer_types has {unknown[0]!r}, which is not known here")
        if len(types) != number:
            raise ValueError(f"layer_types has {len(types)} layers, and num_hidden_layers={number}")
        return {flag: PerLayer((self.full if kind == FULL else self.linear)[flag] for kind in types)
                for flag in self.full}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        mixers = [cfg.at(i).mixer for i in range(cfg.num_layers)]
        return {"layer_types": [FULL if mixer == self.full["mixer"] else LINEAR for mixer in mixers]}


@dataclass(frozen=True)
class DeltaSizes:
    """The heads of Gated DeltaNet and their widths. `usual` gives those that are absent, by our names."""

    usual: Callable[[Theirs], Mapping[str, int]]
    FLAGS = {"linear_num_value_heads": "num_heads", "linear_num_key_heads": "num_key_heads",
             "linear_key_head_dim": "key_dim", "linear_value_head_dim": "value_dim",
             "linear_conv_kernel_dim": "conv_len"}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.FLAGS)

    @property
    def defaults(self) -> dict[str, Any]:
        return {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given = {flag: theirs[name] for name, flag in self.FLAGS.items() if theirs.get(name) is not None}
        return {f"gated_delta.{flag}": value for flag, value in (self.usual(theirs) | given).items()}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = layer_with(cfg, "gated_delta").gated_delta
        values = own.spelled_out(cfg.dim) | {"num_heads": own.num_heads, "conv_len": own.conv_len}
        if own.conv_len is None:
            raise ValueError("model.gated_delta.conv_len=None, and this family has a convolution")
        return {name: values[flag] for name, flag in self.FLAGS.items()}


@dataclass(frozen=True)
class TapsOfParts(Taps):
    """A convolution of each channel that is saved in three: of queries, keys and values, for which theirs has {}.

    Together they are one tensor, which files cut elsewhere too: transformers in three equal parts.
    """

    mixer: str  # whose widths these are
    by_rows = True

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [f"{prefix}{self.theirs.format(part)}.{end}" for part in "qkv"]

    def whole(self, theirs: Sequence[Any]) -> Any:
        return pack(theirs, "* one i")[0]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> list[Any]:
        own = getattr(layer_with(cfg, self.mixer), self.mixer)
        return super().join(ours, cfg).split(own.widths(cfg.dim))


def together(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors, of a TapsOfParts that of all three."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        whole = re.sub(r"\.[qkv]_conv1d\.weight$", ".conv1d.weight", name)
        rows = found[whole][0] if whole in found else 0
        found[whole] = tuple(shape) if whole == name else (rows + shape[0], *shape[1:])
    return found


@dataclass(frozen=True)
class Unsqueezed(Same):
    """A number for each head, which theirs has between axes of 1."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [rearrange(theirs, "1 1 h 1 -> h")]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return rearrange(ours[0], "h -> 1 1 h 1")


def mixer_names(room: str, names: Mapping[str, str], *rules: Same) -> tuple[Same, ...]:
    """Rules for the layers that decay: modules of ours in the mixer -> modules of theirs in `room`, and others."""
    usual = renamed({f"mixer.branch.{ours}": f"{room}.{theirs}" for ours, theirs in names.items()})
    return tuple(replace(rule, beside=DECAY) for rule in (*rules, *usual, Same(DECAY, room)))
