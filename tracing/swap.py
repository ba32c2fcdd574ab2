"""Replace the methods of a model by wrappers while it is watched, and restore them afterwards.

Wrappers are set on classes, so that copies, pickles and `super()` see ordinary modules; calls of other models pass
through. When the last watcher leaves, the original functions are set again.
"""

import ast
import functools
import inspect
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FunctionType

import torch
from torch import nn

from tracing.axes import Axes, parse_dims
from tracing.bound import kept_methods


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of a method before it is called."""

    function: Callable
    method: str
    takes_self: bool  # its first argument is a module
    names: tuple[str, ...]  # of positional parameters, without self
    rest: str  # name of *args
    returns: tuple[str, ...]  # names of the variables it returns
    inputs: tuple[Axes, ...]
    outputs: tuple[Axes, ...]
    marked: bool
    title: str


@functools.cache
def site_of(function: Callable, method: str, skip_first: bool, takes_self: bool) -> Site:
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    dims, title = getattr(function, "__log_io__", ("", ""))
    inputs, outputs = parse_dims(dims) if dims else ((), ())
    return Site(
        function, method, takes_self, tuple(names[skip_first:]), rest, returned_names(function),
        inputs, outputs, hasattr(function, "__log_io__"), title,
    )  # fmt: skip


def returned_names(function: Callable) -> tuple[str, ...]:
    """q, k, v of `return q, k, v`, the last return; () if it returns no variables."""
    if function.__module__.startswith("torch."):
        return ()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # written in a console, or in C
        return ()
    returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if not returns:
        return ()
    last = returns[-1]
    values = last.elts if isinstance(last, ast.Tuple) else [last]
    names = tuple(value.id if isinstance(value, ast.Name) else "" for value in values)
    return names if any(names) else ()


_LOCK = threading.RLock()
_WATCHERS: list = []  # recorders
_SWAPS: dict[tuple, list] = {}  # (id(holder), name) -> [holder, original, wrapper, times]


def is_watched() -> bool:
    """Whether the methods of any model have wrappers now."""
    return bool(_WATCHERS)


def watch(watcher, modules: Iterable[nn.Module]) -> list[tuple[int, str]]:
    """Replace the methods of `modules` by wrappers; pass the result to `unwatch`."""
    with _LOCK:
        modules = list(modules)
        places = {(id(holder), name): (holder, original, _wrapper(holder, name, original))
                  for holder, name, original in _methods(modules)}  # fmt: skip
        keys = [_swap(holder, name, original, wrapper) for (_, name), (holder, original, wrapper) in places.items()]
        wrappers = {_function(original): _function(wrapper) for holder, original, wrapper in places.values()
                    if isinstance(holder, type)}  # fmt: skip
        keys += [_swap(*slot) for slot in kept_methods(modules, wrappers, _before)]
        _WATCHERS.append(watcher)
        return keys


def unwatch(watcher, keys: list[tuple[int, str]]) -> None:
    with _LOCK:
        _WATCHERS.remove(watcher)
        for key in keys:
            swap = _SWAPS[key]
            swap[3] -= 1
            if not swap[3]:
                holder, original, wrapper, _ = _SWAPS.pop(key)
                if _get(holder, key[1]) is wrapper:  # else the model has put something else there
                    _put(holder, key[1], original)


def _swap(holder, name, original, wrapper) -> tuple:
    """Put a wrapper in the place of an original, if it is not there yet; the key in _SWAPS."""
    key = id(holder), name
    swap = _SWAPS.setdefault(key, [holder, original, wrapper, 0])
    swap[3] += 1
    if swap[3] == 1:
        _put(holder, name, wrapper)
    return key


def _before(holder, name, x):
    """What stood where a watcher has put the wrapper x; else x."""
    swap = _SWAPS.get((id(holder), name))
    return swap[1] if swap and swap[2] is x else x


def _get(holder, name):
    if isinstance(holder, list):
        return holder[name] if name < len(holder) else None
    return (holder if isinstance(holder, dict) else vars(holder)).get(name)


def _put(holder, name, value) -> None:
    if isinstance(holder, dict | list):
        holder[name] = value
    elif isinstance(holder, nn.Module):
        holder.__dict__[name] = value  # a forward that was set on one instance, or a bound method
    else:
        setattr(holder, name, value)


def _methods(modules: list[nn.Module]):
    """(class or module, name, attribute) of every forward and marked method."""
    for module in modules:
        if "forward" in vars(module) and not isinstance(module, torch.jit.ScriptModule):
            yield module, "forward", _original(module, "forward")
    for kind in {type(module) for module in modules}:
        if not issubclass(kind, torch.jit.ScriptModule):
            yield from _class_methods(kind)


def method_names(modules: Iterable[nn.Module]) -> set[str]:
    """The names of the methods that can be watched: forward and the marked ones."""
    return {"forward", *(name for _, name, _ in _methods(list(modules)))}


def _class_methods(kind: type[nn.Module]):
    forward_seen = False
    for cls in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for name, attribute in list(vars(cls).items()):
            if name == "forward" and not forward_seen or _is_marked(attribute):
                forward_seen |= name == "forward"
                yield cls, name, _original(cls, name)


@functools.cache
def letters_of(kind: type[nn.Module]) -> frozenset[str]:
    """The letters in the marks of a class."""
    marks = [getattr(_function(attribute), "__log_io__", ("", ""))[0] for *_, attribute in _class_methods(kind)]
    tensors = [axes for text in marks if text for side in parse_dims(text) for axes in side]
    return frozenset(letter for axes in tensors for axis in axes for letter in axis if letter.isalpha())


def _is_marked(attribute) -> bool:
    return hasattr(_function(attribute), "__log_io__")


def _function(attribute) -> Callable:
    """The function of a method, static method or class method."""
    return getattr(attribute, "__func__", attribute)


def _original(holder, name: str):
    swap = _SWAPS.get((id(holder), name))
    return swap[1] if swap else vars(holder)[name]


def _wrapper(holder, name: str, original):
    """The wrapper of `original`, as the same kind of attribute."""
    kind = type(original)
    function = original.__func__ if kind in (staticmethod, classmethod) else original
    on_instance = isinstance(holder, nn.Module)
    takes_self = kind not in (staticmethod, classmethod) and not on_instance
    site = site_of(function, name, takes_self or kind is classmethod, takes_self)
    owner = weakref.ref(holder) if on_instance else None
    watchers, is_compiling = _WATCHERS, torch.compiler.is_dynamo_compiling

    def watched(*args, **kwargs):
        if is_compiling():
            return function(*args, **kwargs)
        call = function
        for recorder in watchers:
            module = args[0] if takes_self and args else owner and owner()
            call = recorder.around(site, module, call)
        return call(*args, **kwargs)

    # torch.jit.script reads the source of `function` and resolves names in these globals
    watched = FunctionType(watched.__code__, _globals(function), closure=watched.__closure__)
    functools.update_wrapper(watched, function)
    return kind(watched) if kind in (staticmethod, classmethod) else watched


def _globals(function: Callable) -> dict:
    return getattr(inspect.unwrap(function), "__globals__", globals())
