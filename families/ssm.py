"""The fields of config.json on state space mixers, and the names of their weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.fields import Field, Implied, OneField, PerLayer, Theirs
from families.weights import HEAD, Fused, Same, Taps, WeightMap, renamed

CONTEXT = "max_position_embeddings"  # their classes do not know it, and keep it
INIT = ("time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme",
        "rescale_prenorm_residual")
COMPUTING = ("residual_in_fp32", "chunk_size", "mamba_chunk_size", "use_mambapy", "use_associative_scan")
MIXER = "mixer.branch"
MAMBA = {"state_dim": "state_size", "conv_len": "conv_kernel", "bias": "use_bias", "conv_bias": "use_conv_bias"}
MAMBA2 = {"num_heads": "num_heads", "head_dim": "head_dim", "state_dim": "state_size", "num_groups": "n_groups",
          "conv_len": "conv_kernel", "bias": "use_bias", "conv_bias": "use_conv_bias"}


def group_fields(group: str, names: Mapping[str, str], defaults: Mapping[str, Any]) -> tuple[Field, ...]:
    """The numbers of a mixer's group: ours -> theirs, with the defaults of a family by our names."""
    return tuple(Field(theirs, f"{group}.{ours}", defaults[ours]) for ours, theirs in names.items())


@dataclass(frozen=True)
class StepRank(OneField):
    """The rank of Mamba's steps of time; auto is a 16th of the width, rounded up."""

    name: str = "time_step_rank"

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given = theirs.get(self.name, "auto")
        return {"mamba.step_rank": math.ceil(theirs["hidden_size"] / 16) if given == "auto" else given}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: cfg.mamba.rank(cfg.dim)}


class Inner:
    """intermediate_size, the channels of Mamba, or else how many times as wide as the model it is: expand."""

    names, defaults = ("intermediate_size", "expand"), {"expand": 2}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        inner = theirs.get("intermediate_size")
        return {"mamba.expand": theirs["expand"] if inner is None else inner / theirs["hidden_size"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"intermediate_size": cfg.mamba.inner_dim(cfg.dim), "expand": round(cfg.mamba.expand)}


def times_wide(name: str, inner: Callable[[Theirs], int], ours: Callable[[ModelConfig], int]) -> Implied:
    """A field that says how many times as wide as the model a mixer is, whose width other fields give."""
    return Implied(name, lambda theirs: times(inner(theirs), theirs["hidden_size"]),
                   lambda cfg: times(ours(cfg), cfg.dim))


def times(wide: int, dim: int) -> int:
    """How many times as wide. Raises ValueError if the number is not whole, as it is in their classes."""
    if wide % dim:
        raise ValueError(f"the width {wide} of a mixer is not a multiple of the width {dim} of the model")
    return wide // dim


@dataclass(frozen=True)
class ListedMixers(OneField):
    """The numbers of the layers that attend; the others have another mixer."""

    name: str
    mixer: str

    def read(self, theirs: Theirs) -> dict[str, Any]:
        listed = theirs.get(self.name) or ()
        return {"mixer": PerLayer("attention" if i in listed else self.mixer
                                  for i in range(theirs["num_hidden_layers"]))}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: [i for i in range(cfg.num_layers) if cfg.at(i).mixer == "attention"]}


def mamba2_width(cfg: ModelConfig) -> int:
    return cfg.mamba2.axes(cfg.dim)["i"]


class StepLimits:
    """time_step_limit: the smallest and the largest step of time, which may be infinite."""

    names: tuple[str, ...] = ("time_step_limit",)
    defaults: dict[str, Any] = {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        low, high = theirs.get("time_step_limit") or (0.0, math.inf)
        return {"mamba2.min_step": low, "mamba2.max_step": None if high == math.inf else high}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        low, high = cfg.mamba2.min_step, cfg.mamba2.max_step
        return {} if (low, high) == (0, None) else {"time_step_limit": [low, math.inf if high is None else high]}


def mamba_rules(room: str) -> tuple[Same, ...]:
    """The names of a Mamba mixer."""
    names = {f"{MIXER}.{name}_norm": f"{room}.{name}_layernorm" for name in ("dt", "b", "c")}
    names |= {f"{MIXER}.selection": f"{room}.x_proj", f"{MIXER}.dt": f"{room}.dt_proj"}
    return (Fused((f"{MIXER}.value", f"{MIXER}.gate"), f"{room}.in_proj"), Taps(f"{MIXER}.conv", f"{room}.conv1d"),
            Same(MIXER, room), *renamed(names), out_of(room))


def mamba2_rules(room: str, mixer: str = MIXER) -> tuple[Same, ...]:
    """The names of a Mamba-2 mixer, ours `mixer` and theirs `room`."""
    return (Fused(tuple(f"{mixer}.{name}" for name in ("gate", "xbc", "dt")), f"{room}.in_proj"),
            Taps(f"{mixer}.conv", f"{room}.conv1d"), Same(mixer, room), Same(f"{mixer}.norm", f"{room}.norm"),
            out_of(room, mixer))


def out_of(room: str, mixer: str = MIXER) -> Same:
    """The last projection of a mixer that has a convolution, as attention has not."""
    return Same(f"{mixer}.out", f"{room}.out_proj", beside=f"{mixer}.conv")


def attention_out() -> Same:
    """That of attention, by the name of Llama, in a model that has both."""
    return Same(f"{MIXER}.out", "self_attn.o_proj", beside=f"{MIXER}.q")


def backbone(*rules: Same) -> WeightMap:
    """The names of a model of state space mixers alone."""
    return WeightMap("backbone.layers.", (*rules, Same("mixer.norm", "norm")), renamed({
        "embed.tokens": "backbone.embeddings", "norm": "backbone.norm_f", HEAD: "lm_head"}), prefix="backbone.")
