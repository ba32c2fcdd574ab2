"""Arguments and results of a call as a flat list of named objects."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import islice

import torch
from torch import Tensor

MAX_VALUES = 32  # kept of one call's arguments, and of its results
PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device)


def flatten(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Tensors and other objects in nested containers, named q, pair[0], cache.k, extra[mask]."""
    flat: list[tuple[str, object]] = []
    for name, x in pairs:
        if isinstance(x, Tensor) or not is_container(x):
            flat.append((name, x))
        else:
            inner = islice(_items(x), MAX_VALUES)
            flat += flatten([(f"{name}{key}", item) for key, item in inner])
    return flat[:MAX_VALUES]


def is_container(x) -> bool:
    return isinstance(x, tuple | list | dict) or is_dataclass(x) and not isinstance(x, type)


def _items(x) -> Iterator[tuple[str, object]]:
    if hasattr(x, "_fields"):
        return ((f".{key}", getattr(x, key)) for key in x._fields)
    if isinstance(x, dict):
        return ((f"[{key}]", item) for key, item in x.items())
    if is_dataclass(x):
        return ((f".{field.name}", getattr(x, field.name)) for field in fields(x))
    return ((f"[{i}]", item) for i, item in enumerate(x))


def describe(x) -> str:
    """Short text for an object that is not a tensor: its value if it is plain, else its class."""
    text = repr(x) if isinstance(x, PLAIN) else type(x).__name__
    return text if len(text) <= 40 else text[:39] + "…"
