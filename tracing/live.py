"""Live logging: print the calls of chosen modules as they happen."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tracing import render
from tracing.axes import AxisNamer
from tracing.parts import idle
from tracing.recorder import Recorder
from tracing.records import Value
from tracing.selecting import nearest
from tracing.swap import Site, letters_of, method_names, unwatch, watch
from tracing.values import Frame


@dataclass(slots=True)
class Switches:
    """The logging switches of one module."""

    path: str = ""
    on: bool = False
    full: bool = False  # print all numbers of every tensor
    muted: set[str] = field(default_factory=set)


class LiveLog(Recorder):
    """Prints each call when it begins, with its arguments, and when it ends, with its results."""

    def __init__(self):
        super().__init__({}, stats="basic", max_elems=1 << 20)
        self.switches: weakref.WeakKeyDictionary[nn.Module, Switches] = weakref.WeakKeyDictionary()
        self.keys: list | None = None

    def change(self, module: nn.Module, recursive: bool, how: Callable[[Switches], None]) -> None:
        """Apply `how` to the switches of `module` and, if `recursive`, of all modules in it."""
        if callable(getattr(module, "dims", None)):
            self.namer = AxisNamer.of(tuple(module.dims().items()))
        for path, part in module.named_modules() if recursive else [("", module)]:
            if not idle(part):
                switches = self.switches.setdefault(part, Switches())
                switches.path = path or switches.path
                how(switches)
        if self.keys is not None:
            unwatch(self, self.keys)
            torch.compiler.set_stance("default")
            self.keys = None
        self.claimed = self.claimed.union(*(letters_of(type(part)) for part in module.modules()))
        logged = [part for part, switches in self.switches.items() if switches.on]
        if logged:
            self.keys = watch(self, logged)
            torch.compiler.set_stance("force_eager")  # a compiled model has no calls to print

    def require_method(self, module: nn.Module, recursive: bool, name: str) -> None:
        """Raise ValueError if `module`, with all modules in it if `recursive`, has no such method to print."""
        names = method_names(module.modules() if recursive else [module])
        if name not in names:
            raise ValueError(f"{name!r} is no marked method of {type(module).__name__}"
                             f"{' or of its parts' if recursive else ''}{nearest(name, sorted(names))}")

    def path_of(self, module: nn.Module | None) -> str | None:
        switches = self.switches.get(module) if module is not None else None
        return switches.path if switches and switches.on else None

    def wants(self, module: nn.Module, site: Site) -> bool:
        return site.method not in self.switches[module].muted

    def enter(self, frame: Frame, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.settle()
        print(render.entry(frame.call, len(self.stack)))
        return args, kwargs

    def leave(self, frame: Frame, out):
        self.settle()
        print(render.exit(frame.call, len(self.stack)))
        if not self.stack:
            self.roots.clear()
            self.counts.clear()
            self.seen.clear()
        return out

    def values(self, frame: Frame, flat: list, declared, guess) -> list[Value]:
        values = super().values(frame, flat, declared, guess)
        if self.switches[frame.module].full:
            for value, (_, x) in zip(values, flat, strict=True):
                if isinstance(x, Tensor):
                    value.text = str(x.detach())
        return values


LIVE = LiveLog()
