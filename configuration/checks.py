"""Checks of single values, and of flags that would change nothing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from configuration.tree import get

MAX_NAME_BYTES = 200  # file systems hold 255; names of what belongs to a folder are longer
OFF = (None, False, "none", ())  # values that ask for nothing
Acts = tuple[str, Callable[[Any], bool]]  # when flags have an effect: in words, and as a test


def require_positive(cfg: Any, *names: str) -> None:
    """Raise ValueError if a number is 0, below 0 or not finite. Skips None and words."""
    for name in names:
        value = get(cfg, name)
        if isinstance(value, int | float) and not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be above 0{', and finite' if not value <= 0 else ''}")


def require_between(cfg: Any, *names: str, low: float = 0.0, high: float = 1.0, open_ends: bool = False) -> None:
    """Raise ValueError if a number is not between low and high. Skips None."""
    for name in names:
        value = get(cfg, name)
        if value is not None and not (low < value < high if open_ends else low <= value <= high):
            raise ValueError(f"{name}={value} must lie between {low:g} and {high:g}")


def require_not_negative(cfg: Any, *names: str) -> None:
    """Raise ValueError if a number is below 0 or not finite."""
    for name in names:
        value = get(cfg, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}={value} is {'below 0' if value < 0 else 'not finite'}")


def require_factors(cfg: Any, *names: str, number: int) -> None:
    """Raise ValueError unless flags have so many numbers, each above 0 and finite."""
    for name in names:
        value = get(cfg, name)
        if len(value) != number or not all(0 < factor < math.inf for factor in value):
            raise ValueError(f"{name}={words_of(value)} must be {number} factors, above 0 and finite")


def rotated_channels(head_dim: int, fraction: float) -> int:
    """The first channels of a head, an even number, that rope.fraction rotates; a product may miss it by rounding.

    Raises ValueError if the fraction is not that of a whole number of pairs.
    """
    given = head_dim * fraction
    count = 2 * round(given / 2) if math.isfinite(given) else 0
    if not 0 < fraction <= 1 or not math.isclose(given, count, rel_tol=1e-6):
        raise ValueError(f"rope.fraction={fraction:g} of attention.head_dim={head_dim} is {given:g} channels: rope "
                         "turns pairs, so it must be even, and at most all")
    return count


def is_folder_name(name: str) -> bool:
    return name not in ("", ".", "..") and all(c.isalnum() or c in "._-" for c in name)


def require_folder_name(flag: str, name: str | None) -> None:
    """Raise ValueError if a name cannot be that of a folder, hides it, or reads as a flag. Skips None."""
    if name is None:
        return
    if not is_folder_name(name) or name[0] in ".-":
        raise ValueError(f"{flag}={name!r} is not a folder name: use letters, digits, '.', '_', '-', and begin with "
                         "none of '.' and '-'")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"{flag}={name[:20]}... is {len(name.encode())} bytes long: use at most {MAX_NAME_BYTES}")


def words_of(values: tuple[Any, ...]) -> str:
    return " ".join(map(str, values))


def check_ignored(cfg: Any, acts: Mapping[tuple[str, ...], Acts], neutral: Mapping[str, Any]) -> None:
    """Raise ValueError if a flag requests something but would change nothing."""
    for names, (condition, test) in acts.items():
        for name in names:
            if asks(cfg, name, neutral) and not test(cfg):
                raise ValueError(ignored_sentence(name, get(cfg, name), condition, default_of(cfg, name)))


def asks(cfg: Any, name: str, neutral: Mapping[str, Any]) -> bool:
    """Whether a flag requests something: it is not off, not its default, and not the plain choice of presets."""
    value = get(cfg, name)
    return value not in (default_of(cfg, name), neutral.get(name), *OFF)


def ignored_sentence(name: str, value: Any, condition: str, default: Any) -> str:
    return (f"{name}={value} would change nothing: it acts only when {condition}; "
            f"otherwise leave it {'out' if default in OFF else f'at {default}'}")


def default_of(cfg: Any, name: str) -> Any:
    """The default of a flag in config.py."""
    group, _, flag = name.rpartition(".")
    return _defaults(type(get(cfg, group) if group else cfg))[flag]


@cache
def _defaults(kind: type) -> dict[str, Any]:
    """The defaults of a dataclass."""
    return {field.name: field.default for field in fields(kind)}


def check_experts(cfg: Any) -> None:
    """Raise ValueError if a mixture of experts is impossible."""
    size = cfg.num_experts // cfg.num_groups
    if cfg.num_experts % cfg.num_groups:
        raise ValueError(f"num_groups={cfg.num_groups} does not divide num_experts={cfg.num_experts}")
    if cfg.top_groups > cfg.num_groups:
        raise ValueError(f"top_groups={cfg.top_groups} is more than num_groups={cfg.num_groups}")
    if cfg.num_groups > 1 and cfg.scores == "sigmoid" and size < 2:
        raise ValueError(f"num_groups={cfg.num_groups} leaves one expert in a group: scores=sigmoid ranks groups by "
                         "their best two")
    if cfg.scores == "sparsemixer" and (cfg.num_groups > 1 or cfg.balance_bias):
        raise ValueError("scores=sparsemixer takes the best experts in turn: leave num_groups and balance_bias out")
    within = size * cfg.top_groups if cfg.num_groups > 1 else cfg.num_experts
    if cfg.top_k > within:
        raise ValueError(f"top_k={cfg.top_k} is more than the {within} experts that a token can choose from")
