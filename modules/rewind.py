"""Take back what a cache was given since a mark: for guesses that are checked, and for text that is not final yet."""

from collections.abc import Iterator
from typing import Any

Mark = list[tuple[Any, dict[str, Any]]]


def mark(cache: Any) -> Mark:
    """What `rewind` needs to return a cache to its present state. It costs no copy of a tensor.

    A part of a cache writes behind what it holds, or replaces its tensors: it never changes what it holds.
    """
    return [(part, dict(vars(part))) for part in _parts(cache)]


def rewind(marked: Mark) -> None:
    """Return a cache to the state in which it was marked. It may be returned to it again."""
    for part, state in marked:
        vars(part).clear()
        vars(part).update(state)


def drop_last(cache: Any, number: int) -> bool:
    """Forget the last tokens of a cache that has nothing but the keys and values of each; False = it has other states.
    """
    drops = [getattr(part, "drop_last", None) for part in _parts(cache)]
    for drop in drops if all(drops) else ():
        drop(number)
    return all(drops)


def _parts(cache: Any) -> Iterator[Any]:
    """The caches within a cache that have a state."""
    if hasattr(cache, "__dict__"):
        yield cache
    inner = cache.values() if isinstance(cache, dict) else cache if isinstance(cache, (list, tuple)) else (
        vars(cache).values() if hasattr(cache, "keep_rows") else ())
    for each in inner:
        if hasattr(each, "keep_rows") or isinstance(each, (list, dict)):
            yield from _parts(each)
