"""The rule that no flag of ModelConfig is ignored: one that requests something is used by a layer; see acting.py."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any

from configuration.acting import CONDITIONS, LAYER_ACTS, has_part
from configuration.checks import Acts, asks, default_of, ignored_sentence
from configuration.plain import ALSO_WHOLE_MODEL, NEUTRAL_MODEL, WHOLE_MODEL
from configuration.tree import flag_names, get


def check_acting(cfg: Any) -> None:
    """Raise ValueError if a flag of a layer requests something, but no layer with that value uses it."""
    layers = [cfg.by_kind[kind] for kind in dict.fromkeys(cfg.layers)]
    silent = _silent_groups(cfg, layers)
    for group, name, (condition, test) in _acts(type(cfg)):
        if group not in silent:
            _require_acting(cfg, layers, name, condition, test)
    if cfg.by_kind["base"] in layers:  # which has the model's own values
        return
    alike = WHOLE_MODEL | ALSO_WHOLE_MODEL | silent
    for name in flag_names(type(cfg)):
        if name.partition(".")[0] in alike or not asks(cfg, name, NEUTRAL_MODEL):
            continue
        if all(get(layer, name) != get(cfg, name) for layer in layers):
            raise ValueError(f"{name}={get(cfg, name)} would change nothing: every kind of layer has its own")


def _silent_groups(cfg: Any, layers: list[Any]) -> set[str]:
    """Groups that are as they stand in config.py everywhere: most, and none of their flags requests anything."""
    groups = ((name, getattr(cfg, name)) for name in _groups(type(cfg)))
    return {name for name, group in groups if group == _default_group(type(group)) and all(
        getattr(one, name) is group or getattr(one, name) == group for one in layers)}


@cache
def _default_group(kind: type) -> Any:
    return kind()


@cache
def _groups(kind: type) -> dict[str, type]:
    """The groups of flags by their names."""
    return {field.name: field.type for field in fields(kind) if is_dataclass(field.type)}


@cache
def _acts(kind: type) -> list[tuple[str, str, Acts]]:
    """(its group, a flag, when it acts), for each flag that only acts sometimes."""
    of_groups = {tuple(f"{group}.{flag.name}" for flag in fields(own)): (
        CONDITIONS.get(group, f"a layer has {group}"), partial(has_part, group=group))
        for group, own in _groups(kind).items()}
    return [(name.partition(".")[0], name, acts) for names, acts in (of_groups | LAYER_ACTS).items() for name in names]


def _require_acting(cfg: Any, layers: list[Any], name: str, condition: str, test: Callable[[Any], bool]) -> None:
    for layer in layers:
        value = get(layer, name)
        if not asks(layer, name, NEUTRAL_MODEL) or any(test(x) for x in layers if get(x, name) == value):
            continue
        kind = next(kind for kind, other in cfg.by_kind.items() if other is layer)
        named = name if get(cfg, name) == value else f"kinds.{kind}.{name}"
        raise ValueError(ignored_sentence(named, value, condition, default_of(layer, name)))
