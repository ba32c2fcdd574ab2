"""Methods that a module keeps under another name: bound ones, and functions in menus, partials and containers."""

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType, MethodType

from torch import nn

Slot = tuple[object, object, object, object]  # holder, name or key or index, what it holds, what is to be there
CONTAINERS = (dict, list, tuple, functools.partial)
SETTERS = (dict.__setitem__, OrderedDict.__setitem__, list.__setitem__)  # not those of containers that are frozen


def kept_methods(
    modules: Iterable[nn.Module], wrappers: Mapping[Callable, Callable], original: Callable,
) -> Iterator[Slot]:
    """Where modules, or their classes, keep functions that have wrappers, and the same with the wrapper in its place.

    Looks into attributes, dicts, lists, tuples and functools.partial, however nested. A tuple or partial is replaced as
    a whole; closures and other objects are not looked into. `original(holder, key, x)` is what stood where another
    watcher has put x.
    """
    places = [(module, vars(module)) for module in modules]
    kinds = {cls for module, _ in places for cls in type(module).__mro__ if issubclass(cls, nn.Module)} - {nn.Module}
    for kind in kinds:  # functions themselves are methods there
        places.append((kind, {name: x for name, x in vars(kind).items() if isinstance(x, CONTAINERS)}))
    seen: set[int] = set()
    while places:
        holder, items = places.pop()
        for key, x in list(items.items()):
            x = original(holder, key, x)
            new = x if isinstance(holder, tuple | functools.partial) else _replaced(x, wrappers)
            if new is not x and (isinstance(holder, type) or key != "forward"):  # a forward has its own place
                yield holder, key, x, new
            if isinstance(x, CONTAINERS) and id(x) not in seen:
                seen.add(id(x))
                places.append((x, _items(x)))


def _items(x) -> Mapping:
    """The items of a container, by key or index; none if it is frozen."""
    if isinstance(x, functools.partial):
        return dict(enumerate((*x.args, *x.keywords.values())))
    if isinstance(x, tuple):
        return dict(enumerate(x))
    if type(x).__setitem__ not in SETTERS:
        return {}
    return x if isinstance(x, dict) else dict(enumerate(x))


def _replaced(x, wrappers: Mapping):
    """x with the wrappers of functions in the place of these; x itself if it holds none, or is a dict or list."""
    if isinstance(x, MethodType):
        return MethodType(wrappers[x.__func__], x.__self__) if x.__func__ in wrappers else x
    if isinstance(x, FunctionType):
        return wrappers.get(x, x)
    if isinstance(x, tuple):
        items = [_replaced(item, wrappers) for item in x]
        if all(map(operator.is_, items, x)):
            return x
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if isinstance(x, functools.partial):
        function, args = _replaced(x.func, wrappers), _replaced(x.args, wrappers)
        keywords = {name: _replaced(item, wrappers) for name, item in x.keywords.items()}
        if function is x.func and args is x.args and all(map(operator.is_, keywords.values(), x.keywords.values())):
            return x
        return type(x)(function, *args, **keywords)
    return x
