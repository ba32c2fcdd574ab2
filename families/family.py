"""A family of published models: its presets, its config.json and its weights, all in one file of this folder.

Needs no torch: presets are read for --help.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Any, Protocol

from config import ModelConfig, override
from configuration.plain import PLAIN_MODEL
from families.differences import differences
from families.fields import PerLayer, Theirs, scale_of
from families.weights import WeightMap

ADAMW = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "grad_clip": 1.0,
         "embed_lr_mult": 1.0, "head_lr_mult": 1.0, "vector_lr_mult": 1.0, "schedule": "cosine", "min_lr_ratio": 0.1}
EVERY_BIAS = {f"attention.{name}_bias": True for name in ("q", "k", "v", "out")} | {"mlp_bias": True, "norm_bias": True}
MOST = {"num_layers": (10_000, "layers"), "max_seq_len": (2**24, "tokens of context")}  # what tables may be made for
# fields that do not change what a model computes from tokens: how it is trained, stored or called
HARMLESS = {
    "model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "auto_map", "_name_or_path",
    "name_or_path", "initializer_range", "init_std", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id",
    "decoder_start_token_id", "sep_token_id", "output_attentions", "output_hidden_states", "return_dict",
    "return_dict_in_generate", "problem_type", "id2label", "label2id", "num_labels", "finetuning_task",
    "task_specific_params", "chunk_size_feed_forward", "attn_implementation", "_attn_implementation",
    "_attn_implementation_autoset", "pretraining_tp", "gradient_checkpointing", "layerdrop", "tokenizer_class",
    "unsloth_version", "unsloth_fixed", "summary_type", "summary_use_proj", "summary_activation",
    "summary_proj_to_labels", "summary_first_dropout", "classifier_dropout",
}
MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)  # what wrong types make a part raise


class Part(Protocol):
    """Fields of config.json and the flags that they stand for; see families/fields.py."""

    names: tuple[str, ...]  # of fields
    defaults: Mapping[str, Any]  # what the absence of a field means

    def read(self, theirs: Theirs) -> dict[str, Any]: ...

    def write(self, cfg: ModelConfig) -> dict[str, Any]: ...


@dataclass(frozen=True)
class About:
    """What the gallery says of a preset."""

    apart: str  # what sets it apart, in a few words
    year: int | None  # of its publication; None = made here
    paper: str  # its arXiv number, or who published it elsewhere


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one `model_type` of transformers, as flags: the plain choices, `fixed` ones, and what `fields` read."""

    model_type: str
    architecture: str  # the class of transformers
    fields: Sequence[Part]
    weights: WeightMap
    fixed: Mapping[str, Any] = field(default_factory=dict)  # flags that all its models have
    only: Mapping[str, Any] = field(default_factory=dict)  # fields that may have one value besides None and False
    harmless: tuple[str, ...] = ()  # further fields that change nothing
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of fields -> the one in `fields`
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> flags of the model
    about: Mapping[str, About] = field(default_factory=dict)  # of each preset
    training: Mapping[str, Any] = field(default_factory=lambda: ADAMW | {"lr": 3e-4})

    def gallery(self) -> dict[str, dict[str, Any]]:
        """Its presets as overrides of `Config`."""
        return {name: {"model": PLAIN_MODEL | self.fixed | flags, "train": self.training}
                for name, flags in self.presets.items()}

    # ---- config.json ----

    def read(self, theirs: Theirs) -> ModelConfig:
        """The configuration that a config.json describes.

        Raises ValueError if it has a field that is not known here and may change what the model computes.
        """
        theirs = self._by_one_name({name: with_floats(value) for name, value in theirs.items()})
        self._require_known(theirs)
        full = {name: value for part in self.fields for name, value in part.defaults.items()} | dict(theirs)
        flags: dict[str, Any] = {}
        for part in self.fields:
            try:
                _require_few(flags)
                flags |= part.read(full)
            except MISTAKES as error:
                raise ValueError(f"config.json cannot be read as a {self.architecture}: "
                                 f"{_said(part, full, error)}") from None
        return _settled(override(ModelConfig(), PLAIN_MODEL | self.fixed | by_kinds(flags)))

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        """The config.json of a configuration that the family can express; see `misfits`."""
        written = {"architectures": [self.architecture], "model_type": self.model_type, **self.only}
        for part in self.fields:
            written |= part.write(cfg)
        return written

    def misfits(self, cfg: ModelConfig) -> list[str]:
        """Why the family cannot express a configuration; none = it can.

        Flags that differ, as "model.flag=...", or the one sentence of a rule that is broken.
        """
        try:
            found = differences(cfg, self.read(self.write(cfg)))
        except MISTAKES as error:
            return [str(error)]
        return [f"model.{flag}={ours}, and a {self.architecture} has {theirs}" for flag, ours, theirs in found]

    def _by_one_name(self, theirs: Theirs) -> Theirs:
        """The fields without their other names. Raises ValueError if two names of one have different values."""
        found = dict(theirs)
        for alias, name in self.aliases.items():
            if alias in found and found.setdefault(name, found[alias]) != found.pop(alias):
                raise ValueError(f"config.json has {alias}={_short(theirs[alias])} and {name}={_short(found[name])}, "
                                 "which are one field")
        return found

    def _require_known(self, theirs: Theirs) -> None:
        known = {name for part in self.fields for name in part.names} | HARMLESS | {*self.harmless, *self.only}
        for name, value in theirs.items():
            if name in self.only and value not in (self.only[name], None):
                raise ValueError(f"config.json has {name}={_short(value)}, which is not known here: only "
                                 f"{name}={self.only[name]} is")
            if name not in known and value not in (None, False, [], {}):
                raise ValueError(f"config.json has {name}={_short(value)}, which may change what a "
                                 f"{self.architecture} computes and is not known here")


def by_kinds(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags with the values of each layer, as flags with `layers` and `kinds`."""
    varying = {name: value for name, value in flags.items() if isinstance(value, PerLayer) and len(set(value)) > 1}
    alike = {name: value[0] if isinstance(value, PerLayer) else value
             for name, value in flags.items() if name not in varying}
    if not varying:
        return alike
    layers = list(zip(*varying.values(), strict=True))
    period = next(n for n in range(1, len(layers) + 1) if all(
        layer == layers[i % n] for i, layer in enumerate(layers)))
    kinds: dict[tuple, str] = {}
    for layer in layers:
        if layer not in kinds:
            kinds[layer] = _free_name(dict(zip(varying, layer, strict=True)), kinds.values())
    changes = {name: {flag: value for flag, value in zip(varying, layer, strict=True) if value != PLAIN_MODEL[flag]}
               for layer, name in kinds.items()}
    return alike | {"layers": tuple(kinds[layer] for layer in layers[:period]), "kinds": changes}


def _free_name(flags: Mapping[str, Any], taken: Any) -> str:
    """The name of a kind of layer: local or global by its window or chunk, else its mixer, rope or nope."""
    near = [flags[flag] for flag in ("attention.window", "attention.chunk") if flag in flags]
    stem = flags.get("mixer") or ("nope" if flags.get("position") == "none" else "rope")
    stem = flags.get("mlp", stem) if stem == "none" else stem
    if near:
        stem = "local" if any(near) else "global"
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _require_few(flags: Mapping[str, Any]) -> None:
    for name, (most, what) in MOST.items():
        number = flags.get(name, 1)
        if not isinstance(number, int) or number > most:
            raise ValueError(f"{number!r} is not a number of {what}: use at most {most:,}")


def _settled(cfg: ModelConfig) -> ModelConfig:
    """Without a scale of the scores that is the default of its head width; an MLP of no given width has 4 x dim."""
    unknown = any(layer.hidden_dim is None and layer.mlp == "mlp" for layer in map(cfg.at, range(cfg.num_layers)))
    changes = {"hidden_dim": 4 * cfg.dim} if unknown else {}
    if cfg.attention.scale is not None:
        plain = override(cfg, {"attention.scale": None})
        changes |= {"attention.scale": None} if isclose(cfg.attention.scale, scale_of(plain), rel_tol=1e-12) else {}
    return override(cfg, changes) if changes else cfg


def _said(part: Part, theirs: Theirs, error: Exception) -> str:
    """A part's own sentence, or the values that it could not use."""
    if isinstance(error, ValueError):
        return str(error)
    given = {name: theirs[name] for name in part.names if name in theirs}
    return f"{', '.join(f'{name}={_short(value)}' for name, value in given.items())} is wrong"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def with_floats(value: Any) -> Any:
    """A field of a config.json, in which their library writes e.g. infinity as {"__float__": "Infinity"}."""
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    return next((float(word) for word in ("Infinity", "-Infinity", "NaN") if value == {"__float__": word}), value)
