"""The fields of config.json in which layers may differ, such as those on positions and windows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config import LayerConfig, ModelConfig, get
from configuration.plain import PLAIN_MODEL
from families.fields import OneField, PerLayer, Theirs

SLIDING, FULL = "sliding_attention", "full_attention"
ORIGINAL = "original_max_position_embeddings"
# the fields of each rope_type besides its factor, and whether it can do without
LENGTH = {ORIGINAL: ("rope.original_len", False)}
SCALED: dict[str, dict[str, tuple[str, bool]]] = {
    "linear": {},
    "llama3": LENGTH | {f"{name}_freq_factor": (f"rope.{name}_freq_factor", False) for name in ("low", "high")},
    "yarn": LENGTH | {name: (f"rope.{name}", True) for name in ("beta_fast", "beta_slow", "truncate",
                                                                "attention_factor")},
}


@dataclass(frozen=True)
class Rope:
    """rope_parameters, or the older rope_theta, rope_scaling and partial_rotary_factor.

    `fraction` is None for a family that rotates whole heads; `absent` is what the absence of all of them means; `types`
    are the kinds of scaling that their class knows.
    """

    theta: float = 10_000.0
    fraction: float | None = None
    absent: tuple[tuple[str, Any], ...] = ()
    types: tuple[str, ...] = tuple(SCALED)

    @property
    def names(self) -> tuple[str, ...]:
        return ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")

    @property
    def defaults(self) -> dict[str, Any]:
        return {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        older = {name: theirs[name] for name in ("rope_theta", "partial_rotary_factor") if name in theirs}
        given = older | (theirs.get("rope_scaling") or {}) | (theirs.get("rope_parameters") or {})
        return self.flags(given or dict(self.absent))

    def flags(self, given: Theirs) -> dict[str, Any]:
        """Our flags of one set of parameters. Raises ValueError for another kind of RoPE."""
        rest = {name: value for name, value in given.items() if value is not None}
        kind = rest.pop("rope_type", rest.pop("type", "default"))
        rest.pop("type", None)
        if kind not in ("default", *self.types):
            raise ValueError(f"rope_type={kind!r} is not known here: only {', '.join(('default', *self.types))}")
        flags = {"rope.theta": rest.pop("rope_theta", self.theta)} | _scaling(kind, rest)
        if self.fraction is not None:
            flags["rope.fraction"] = rest.pop("partial_rotary_factor", self.fraction)
        if rest and rest != {"partial_rotary_factor": 1.0}:
            raise ValueError(f"rope_parameters has {', '.join(rest)}, which is not known here")
        return flags

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"rope_parameters": self.parameters(cfg)}

    def parameters(self, cfg: ModelConfig) -> dict[str, Any]:
        part = {} if self.fraction is None else {"partial_rotary_factor": cfg.rope.fraction}
        kind, own = "default" if cfg.rope.scaling == "none" else cfg.rope.scaling, {}
        if kind != "default":
            own = {"factor": cfg.rope.factor} | {name: get(cfg, flag) for name, (flag, _) in SCALED.get(
                kind, {}).items() if get(cfg, flag) is not None}
        return {"rope_type": kind, "rope_theta": cfg.rope.theta} | own | part


def _scaling(kind: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Our flags of a rope_type; takes its fields out of `rest`. Raises ValueError if one is missing."""
    if kind == "default":
        return {}
    fields = SCALED[kind]
    if missing := [name for name in ("factor", *fields) if name not in rest and not fields.get(name, ("", False))[1]]:
        raise ValueError(f"rope_parameters of rope_type={kind} has no {missing[0]}")
    factor = rest.pop("factor")
    found = {flag: rest.pop(name) for name, (flag, _) in fields.items() if name in rest}
    return {} if factor == 1 and kind == "linear" else found | {"rope.scaling": kind, "rope.factor": factor}


@dataclass(frozen=True)
class Windows:
    """layer_types: which layers have the window of sliding_window.

    `pattern`: without layer_types, which layers are full (f) and which have the window (s), repeated over the depth;
    `counted`: sliding_window_pattern may give another, a number n for n - 1 layers with the window and a full one.
    `switched`: the window acts only with use_sliding_window, and then without layer_types from max_window_layers on.
    `nope`: full layers have no positions, if others have a window; `nope_alone`: also if none has.
    """

    window: int | None = 4096
    pattern: str = "f"
    counted: bool = False
    switched: bool = False
    nope: bool = False
    nope_alone: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        switch = ("use_sliding_window", "max_window_layers") if self.switched else ()
        return ("layer_types", "sliding_window", *switch, *(("sliding_window_pattern",) if self.counted else ()))

    @property
    def defaults(self) -> dict[str, Any]:
        return {"sliding_window": self.window}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        window, number = theirs["sliding_window"], theirs["num_hidden_layers"]
        if self.switched and not theirs.get("use_sliding_window"):
            window = None
        types = theirs.get("layer_types") or [
            SLIDING if self.slides(theirs, i) else FULL for i in range(number)]
        if unknown := [kind for kind in types if kind not in (SLIDING, FULL)]:
            raise ValueError(f"layer_types has {unknown[0]!r}, which is not known here")
        if len(types) != number:
            raise ValueError(f"layer_types has {len(types)} layers, and num_hidden_layers={number}")
        found = {"attention.window": PerLayer(window if kind == SLIDING else None for kind in types)}
        if self.nope_alone and window is None and SLIDING in types:
            raise ValueError(f"sliding_window=None with {SLIDING} in layer_types is not known here")
        if self.nope_alone or self.nope and window is not None:
            found["position"] = PerLayer("rope" if kind == SLIDING else "none" for kind in types)
        return found

    def slides(self, theirs: Theirs, layer: int) -> bool:
        """Whether a layer has the window, if layer_types does not say so."""
        if self.switched:
            return layer >= theirs.get("max_window_layers", 28)
        every = theirs.get("sliding_window_pattern")
        pattern = "s" * (every - 1) + "f" if every else self.pattern
        return pattern[layer % len(pattern)] == "s"

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        windows = [cfg.at(i).attention.window for i in range(cfg.num_layers)]
        used = next((window for window in windows if window is not None), None)
        written = {"layer_types": [FULL if window is None else SLIDING for window in windows]}
        if self.switched:
            return written | {"use_sliding_window": used is not None, "sliding_window": used}
        return written | {"sliding_window": used if self.nope else used or self.window}


@dataclass(frozen=True)
class OneWindow:
    """sliding_window of all layers, if use_sliding_window."""

    window: int = 4096
    names: tuple[str, ...] = ("use_sliding_window", "sliding_window")

    @property
    def defaults(self) -> dict[str, Any]:
        return {"sliding_window": self.window}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"attention.window": theirs["sliding_window"] if theirs.get("use_sliding_window") else None}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        window = cfg.attention.window
        return {"use_sliding_window": window is not None, "sliding_window": window or self.window}


@dataclass(frozen=True)
class RopeByType(Rope):
    """Windows, and rope_parameters of sliding and of full layers, or the older rope_local_base_freq and rope_theta."""

    windows: Windows = Windows()
    local_theta: float = 10_000.0

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.windows.names, "rope_parameters", "rope_theta", "rope_local_base_freq", "rope_scaling")

    @property
    def defaults(self) -> dict[str, Any]:
        return self.windows.defaults

    def read(self, theirs: Theirs) -> dict[str, Any]:
        given, layers = theirs.get("rope_parameters") or {}, self.windows.read(theirs)
        full = {"rope_theta": theirs.get("rope_theta", self.theta)} | (theirs.get("rope_scaling") or {})
        sliding = {"rope_theta": theirs.get("rope_local_base_freq", self.local_theta)}
        if unknown := given.keys() - {SLIDING, FULL}:
            raise ValueError(f"rope_parameters has {', '.join(sorted(unknown))}, not only {SLIDING} and {FULL}")
        flags = {kind: self.flags(older | (given.get(kind) or {}))
                 for kind, older in ((SLIDING, sliding), (FULL, full))}
        kinds = [FULL if window is None else SLIDING for window in layers["attention.window"]]
        return layers | {name: PerLayer(flags[kind].get(name, PLAIN_MODEL[name]) for kind in kinds)
                         for name in flags[FULL] | flags[SLIDING]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        written = {kind: {"rope_type": "default", "rope_theta": theta}
                   for kind, theta in ((SLIDING, self.local_theta), (FULL, self.theta))}
        written |= {FULL if layer.attention.window is None else SLIDING: self.parameters(layer) for layer in layers}
        return self.windows.write(cfg) | {"rope_parameters": written}


@dataclass(frozen=True)
class EachLayer(OneField):
    """One field that lists a value for each layer; without it no flag is set.

    `flags` gives the flags of a value, always the same ones; `value` the value of a layer.
    """

    flags: Callable[[Any], dict[str, Any]]
    value: Callable[[LayerConfig], Any]

    def read(self, theirs: Theirs) -> dict[str, Any]:
        values, number = theirs.get(self.name), theirs["num_hidden_layers"]
        if values is None:
            return {}
        if len(values) != number:
            raise ValueError(f"{self.name} has {len(values)} layers, and num_hidden_layers={number}")
        layers = [self.flags(value) for value in values]
        return {flag: PerLayer(flags[flag] for flags in layers) for flag in layers[0]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: [self.value(cfg.at(i)) for i in range(cfg.num_layers)]}
