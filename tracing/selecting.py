"""The recorder of trace(): which calls it keeps, units that are always 0, a stop at the first NaN."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from tracing import measure
from tracing.gradients import GradientHooks
from tracing.parts import count_parts, idle, named_parts
from tracing.recorder import Recorder
from tracing.records import Call
from tracing.result import Trace
from tracing.swap import Site, letters_of, method_names
from tracing.values import Frame


@dataclass(frozen=True)
class Selection:
    """Which calls to keep: by nesting, by globs of module paths and of method names, and if marked."""

    depth: int | None
    include: list[str] | None
    exclude: list[str]
    methods: list[str] | None
    leaves: bool  # also modules without a mark

    def wants(self, path: str, site: Site, level: int) -> bool:
        """Whether to keep a call of this method of this module, so deep in the tree; the model's forward always."""
        if not path and site.method == "forward":
            return True
        return (
            (self.depth is None or level <= self.depth)
            and (self.leaves or site.marked)
            and (self.methods is None or matches(site.method, self.methods))
            and (self.include is None or matches(path, self.include))
            and not matches(path, self.exclude)
        )


    def check(self, paths: Iterable[str], methods: Iterable[str]) -> None:
        """Raise ValueError for a glob that fits none of the modules, or of the methods, of a model."""
        for flag, globs, names, what in (
            ("include", self.include, paths, "module"), ("exclude", self.exclude, paths, "module"),
            ("methods", self.methods, methods, "marked method"),
        ):  # fmt: skip
            for glob in globs or ():
                if not any(fnmatchcase(name, glob) for name in names):
                    raise ValueError(f"{flag}={glob!r} fits no {what} of this model{nearest(glob, names)}")


def nearest(given: str, names: Iterable[str]) -> str:
    """": the nearest is NAME", or "" if there is none."""
    found = get_close_matches(re.sub(r"[*?\[\]]", "", given), filter(None, names), n=1, cutoff=0.0)
    return f": the nearest is {found[0]!r}" if found else ""


EVERYTHING = Selection(depth=None, include=None, exclude=[], methods=None, leaves=True)


class TraceRecorder(Recorder):
    """Records the selected calls of a model into a trace."""

    def __init__(self, model: nn.Module, trace: Trace, selection: Selection, *, stats: str, grad: bool,
                 stop_on_nan: bool, max_elems: int):  # fmt: skip
        parts = named_parts(model)
        trace.parts = count_parts(parts)
        selection.check(parts, method_names(parts.values()))
        self.modules = {path: module for path, module in parts.items() if not idle(module)}
        super().__init__(trace.dims, stats=stats, max_elems=max_elems)
        self.claimed = frozenset().union(*(letters_of(type(module)) for module in self.modules.values()))
        self.paths = {id(module): path for path, module in self.modules.items()}
        trace.calls = self.roots
        self.trace, self.stop_on_nan = trace, stop_on_nan
        self.selection, self.wants_all = selection, selection == EVERYTHING
        self.gradients = GradientHooks(trace, self) if grad else None
        self.live: dict[str, Tensor] = {}  # per activation: channels that were somewhere not 0

    def path_of(self, module: nn.Module) -> str | None:
        return self.paths.get(id(module))

    def wants(self, module: nn.Module, site: Site) -> bool:
        return self.wants_all or self.selection.wants(self.paths[id(module)], site, len(self.stack))

    def enter(self, frame: Frame, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if self.gradients and torch.is_grad_enabled():
            return self.gradients.on_arguments(frame.call, args, kwargs)
        return args, kwargs

    def leave(self, frame: Frame, out):
        if self.stats != "none" and is_activation(frame) and isinstance(out, Tensor):
            self.note_live_channels(frame.call.path, out)
        if self.stop_on_nan:
            self.settle()
            stop_if_bad(frame.call)
        if self.gradients and torch.is_grad_enabled():
            return self.gradients.on_results(frame.call, out)
        return out

    def note_live_channels(self, path: str, out: Tensor) -> None:
        if out.dim() < 2 or not measure.readable(out):
            return
        with torch._C._DisableTorchDispatch():
            live = measure.live_channels(out)
            if path in self.live and self.live[path].shape == live.shape:
                live |= self.live[path]
        self.live[path] = live

    def finish(self) -> None:
        """Fetch pending statistics, and drop every tensor."""
        self.settle()
        for path, live in self.live.items():
            dead = (~live).nonzero().flatten().tolist()
            self.trace.silent[path] = (live.numel(), dead)
        if self.gradients:
            self.gradients.finish(self.modules)
        self.live.clear()
        self.seen.clear()


def stop_if_bad(call: Call) -> None:
    """Raise FloatingPointError if a call made NaN or +Inf of arguments without them."""
    bad = [value for value in call.outputs if value.badness == 2]
    if bad and all(value.badness < 2 for value in call.inputs):
        call.exception = "FloatingPointError: NaN or Inf"
        raise FloatingPointError(f"{call.name} made the first NaN or Inf")


def matches(text: str, globs: list[str]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)


def is_activation(frame: Frame) -> bool:
    """nn.ReLU and its kin, or a module called act, act1, activation."""
    own = frame.call.path.rpartition(".")[2].startswith("act")
    builtin = type(frame.module).__module__ == "torch.nn.modules.activation"
    return frame.site.method == "forward" and (own or builtin)
