"""A configuration as a tree of flags: read, compare and change it by dotted names."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, reduce
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from configuration.mistakes import explain, shortened

T = TypeVar("T")
FLOAT32_MAX = 3.4e38
LEAVES = (str, int, float, tuple, list, type(None))  # are neither groups nor mappings; to ask those takes longer


class FrozenDict(dict):
    """An immutable dictionary, so that a frozen configuration can hold it and be hashed."""

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("a configuration is frozen: use override() for a changed copy")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),)


def flat(cfg: Any, prefix: str = "") -> dict[str, Any]:
    """Every flag by its dotted name: {"model.dim": 128, "model.rope.theta": 10000.0, ...}.

    A kind of layer adds its flags: "model.kinds.local.attention.window". An empty mapping is a value.
    """
    found: dict[str, Any] = {}
    _fill(found, cfg, prefix)
    return found


def _fill(found: dict[str, Any], node: Any, prefix: str) -> None:
    for name, value in _entries(node):
        if isinstance(value, LEAVES) or not (is_dataclass(value) or (isinstance(value, Mapping) and value)):
            found[prefix + name] = value
        else:
            _fill(found, value, f"{prefix}{name}.")


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings: {"rope.theta": 3} gives {"rope": {"theta": 3}}. The inverse of `flat`."""
    tree: dict[str, Any] = {}
    for dotted, value in changes.items():
        *above, name = dotted.split(".")
        node = reduce(lambda node, step: node.setdefault(step, {}), above, tree)
        if not isinstance(value, LEAVES) and isinstance(value, Mapping):
            node[name] = _joined(node.get(name, {}), nested(value))
        else:
            node[name] = value
    return tree


def diff(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """The flags in which two configurations differ, with both values; None if one lacks the flag."""
    left, right = flat(a), flat(b)
    names = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def get(cfg: Any, dotted: str) -> Any:
    """The value of a flag by its dotted name. Raises KeyError if there is none."""
    for name in dotted.split("."):
        known = getattr(cfg, "__dataclass_fields__", None)
        if known is None:
            cfg = cfg[name]
        elif name in known:
            cfg = getattr(cfg, name)
        else:
            raise KeyError(name)
    return cfg


def override(cfg: T, changes: Mapping[str, Any]) -> T:
    """A checked copy with flags changed by their dotted names, e.g. {"model.rope.theta": 5e5}.

    Nested mappings work too: {"model": {"dim": 64}}. A mapping given to `model.kinds` replaces all kinds; a dotted name
    below it changes one flag of one kind. Raises ValueError with one sentence for each mistake.
    """
    _require_possible(type(cfg), changes)
    return _built(type(cfg), _merged(cfg, changes))


def replace(cfg: T, **changes: Any) -> T:
    """`override` with names as keywords: replace(cfg, dim=64)."""
    return override(cfg, changes)


def build(kind: type[T], tree: Mapping[str, Any]) -> T:
    """Build a dataclass from a tree of values; missing flags take their defaults.

    Raises ValueError with one sentence for each unknown flag or wrong value.
    """
    _require_possible(kind, tree)
    return _built(kind, tree)


def _built(kind: type[T], tree: Mapping[str, Any]) -> T:
    try:
        return _adapter(kind).validate_python(dict(tree))
    except ValidationError as error:
        raise ValueError(explain(error, flag_names(kind))) from None


def _require_possible(kind: type, tree: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that no flag of its type should have."""
    hints = _hints(kind)
    for name, value in flat(tree).items():
        if type(value) is float:
            if FLOAT32_MAX < abs(value) < math.inf:
                raise ValueError(f"{name}={value} is larger than {FLOAT32_MAX:g}, float32's largest number")
        elif value is not None:
            for one in value if isinstance(value, tuple | list) else (value,):
                _require_plain(name, one, hints.get(name))


def _require_plain(name: str, value: Any, hint: Any) -> None:
    """Raise ValueError for what a flag's type takes and should not: true as a number, yes as true, 65 bits."""
    if isinstance(value, bool) and _is_number(hint):
        raise ValueError(f"{name}={value} is wrong: use a number")
    if hint in (bool, bool | None) and str(value).lower() not in ("true", "false", "none"):
        raise ValueError(f"{name}={shortened(value)} is wrong: use true or false")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={shortened(value)} has more than 64 bits")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}={shortened(value)} is not UTF-8 text") from None


@cache
def _is_number(hint: Any) -> bool:
    return hint in (int, float) or bool({int, float} & {*get_args(hint)})


def to_dict(cfg: Any) -> dict[str, Any]:
    """A configuration as plain nested dictionaries, for JSON."""
    return {name: value if isinstance(value, LEAVES) or not (is_dataclass(value) or isinstance(value, Mapping))
            else to_dict(value) for name, value in _entries(cfg)}


@cache
def flag_names(kind: type) -> list[str]:
    """The dotted names of all flags of a dataclass."""
    return list(_hints(kind))


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of all flags of a dataclass by their dotted names."""
    found, hints = {}, get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        is_group = isinstance(hint, type) and is_dataclass(hint)
        found |= {f"{field.name}.{name}": below for name, below in _hints(hint).items()} if is_group else \
            {field.name: hint}
    return found


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


class _Open(dict):
    """The flags of a dataclass while a changed copy is made."""


def _merged(node: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = _Open(_entries(node)) if is_dataclass(node) else type(node)(node)
    merged = dict(merged) if isinstance(merged, FrozenDict) else merged
    for dotted, value in changes.items():
        name, _, rest = dotted.partition(".")
        old, value = merged.get(name), {rest: value} if rest else value
        goes_on = isinstance(old, _Open) or is_dataclass(old) or (rest and isinstance(old, Mapping))
        if rest and old is None:
            merged[name] = nested(value)
        else:
            merged[name] = _merged(old, value) if goes_on and isinstance(value, Mapping) else value
    return merged


def _joined(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(a)
    for name, value in b.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(name), Mapping)
        joined[name] = _joined(joined[name], value) if both else value
    return joined


def _entries(node: Any) -> Iterable[tuple[str, Any]]:
    if is_dataclass(node):
        return [(name, getattr(node, name)) for name in _names(type(node))]
    return node.items()


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
