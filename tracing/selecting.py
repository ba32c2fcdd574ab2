"""The recorder behind trace(): which calls to keep, gradients, dead units, parameters."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn

from tracing import measure
from tracing.recorder import Frame, Recorder
from tracing.records import Call, NonFinite, Part
from tracing.result import Trace
from tracing.swap import Site


class TraceRecorder(Recorder):
    """Records the calls that the filters let through, into `record`."""

    def __init__(
        self, model: nn.Module, record: Trace, *, stats: str, depth: int | None,
        include: list[str] | None, exclude: list[str], methods: list[str] | None, leaves: bool,
        grad: bool, stop_on_nan: bool, max_elems: int,
    ):  # fmt: skip
        parts = named_parts(model)
        record.parts = count_parts(parts)
        self.modules = {path: module for path, module in parts.items() if not idle(module)}
        paths = {id(module): path for path, module in self.modules.items()}
        super().__init__(paths, record.dims, stats=stats, max_elems=max_elems)
        self.record, self.depth, self.leaves = record, depth, leaves
        self.include, self.exclude, self.methods = include, exclude, methods
        self.wants_all = leaves and (depth, include, methods, exclude) == (None, None, None, [])
        self.grad, self.stop_on_nan = grad, stop_on_nan
        self.live: dict[str, Tensor] = {}  # per activation: channels that were somewhere not 0
        self.bad_grads: set[int] = set()  # calls whose results got a gradient with NaN or Inf
        self.finished = False

    def wants(self, module: nn.Module, site: Site) -> bool:
        if self.wants_all:
            return True
        path = self.paths[id(module)]
        if not path and site.method == "forward":
            return True
        return (
            (self.depth is None or len(self.stack) <= self.depth)
            and (self.leaves or site.marked)
            and (self.methods is None or matches(site.method, self.methods))
            and (self.include is None or matches(path, self.include))
            and not matches(path, self.exclude)
        )

    def enter(self, frame: Frame, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        super().enter(frame, args, kwargs)
        if self.grad and torch.is_grad_enabled():
            args = tuple(self.hook(x, frame.call, "argument", str(i)) for i, x in enumerate(args))
            kwargs = {k: self.hook(x, frame.call, "argument", k) for k, x in kwargs.items()}
        return args, kwargs

    def leave(self, frame: Frame, out):
        out = super().leave(frame, out)
        call = frame.call
        if self.stats != "none" and is_activation(frame) and isinstance(out, Tensor):
            self.note_live_channels(call.path, out)
        if self.stop_on_nan:
            self.settle()
            self.stop_if_bad(call)
        if self.grad and torch.is_grad_enabled():
            if type(out) in (tuple, list):
                names = [value.name for value in call.outputs]
                names = names if len(names) == len(out) else [f"[{i}]" for i in range(len(out))]
                out = type(out)(
                    self.hook(x, call, "result", name) for x, name in zip(out, names, strict=True)
                )
            else:
                out = self.hook(out, call, "result", call.outputs[0].name if call.outputs else "")
        return out

    def stop_if_bad(self, call: Call) -> None:
        bad = [value for value in call.outputs if value.badness == 2]
        if bad and all(value.badness < 2 for value in call.inputs):
            call.exception = "FloatingPointError: NaN or Inf"
            raise FloatingPointError(f"{call.name} made the first NaN or Inf")

    def note_live_channels(self, path: str, out: Tensor) -> None:
        if out.dim() < 2 or not measure.readable(out):
            return
        with torch._C._DisableTorchDispatch():
            live = measure.live_channels(out)
            if path in self.live and self.live[path].shape == live.shape:
                live |= self.live[path]
        self.live[path] = live

    # -- gradients

    def hook(self, x, call: Call, side: str, name: str):
        """x, or an alias of x whose gradient is that of this use of x alone, seen by saw_grad."""
        if not (isinstance(x, Tensor) and x.requires_grad) or torch.jit.is_tracing():
            return x
        alias = x.view_as(x)
        alias.register_hook(partial(self.saw_grad, call, side, name))
        value = next((v for v in call.outputs if v.name == name), None) if side == "result" else None
        seen = self.seen.get(id(x))
        if seen:
            self.remember(alias, value or seen[2])
        return alias

    def saw_grad(self, call: Call, side: str, name: str, grad: Tensor) -> None:
        if self.finished:
            return
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            norm = grad_norm([grad])
        if side == "result":
            call.grad_norms[name] = norm
        if norm < float("inf"):
            return
        if side == "result":
            self.bad_grads.add(id(call))
            if call is self.roots[0] and self.record.backward_origin is None:
                self.found(call, "a NaN or Inf gradient, arriving from the loss: none was")
        elif id(call) not in self.bad_grads and self.record.backward_origin is None:
            self.found(call, "NaN or Inf")

    def found(self, call: Call, what: str) -> None:
        self.record.backward_origin = NonFinite(
            call.path, call.method, call.kind, call.index, "backward", what
        )

    def finish(self) -> None:
        """Fetch what is outstanding; drop every tensor."""
        self.finished = True
        self.settle()
        for path, live in self.live.items():
            dead = (~live).nonzero().flatten().tolist()
            self.record.silent[path] = (live.numel(), dead)
        if self.grad:
            self.note_parameter_grads()
        self.live.clear()
        self.seen.clear()

    def note_parameter_grads(self) -> None:
        for path, part in self.record.parts.items():
            module = self.modules.get(path)
            own = module.parameters(recurse=False) if module is not None else ()
            grads = [p.grad for p in own if p.grad is not None]
            if grads:
                part.grad_norm = grad_norm(grads)


def grad_norm(grads: list[Tensor]) -> float:
    """The L2 norm of all elements; NaN or Inf only where an element is."""
    return sum(g.double().square().sum().item() for g in grads) ** 0.5


def matches(text: str, globs: list[str]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)


def named_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, without the shells that torch.compile puts around them."""
    modules = dict(model.named_modules())
    if any("_orig_mod" in path for path in modules):
        modules = {clean(path): module for path, module in modules.items()}
    return modules


def clean(path: str) -> str:
    """The path without the layers that torch.compile adds."""
    return ".".join(word for word in path.split(".") if word != "_orig_mod")


def idle(module: nn.Module) -> bool:
    """Modules that do nothing, and the shells of compiled ones."""
    switched_off = isinstance(module, nn.Identity) or isinstance(module, nn.Dropout) and not module.p
    return switched_off or "_orig_mod" in module._modules


def is_activation(frame: Frame) -> bool:
    """nn.ReLU and its kin, or a module called act, act1, activation."""
    own = frame.call.path.rpartition(".")[2].startswith("act")
    builtin = type(frame.module).__module__ == "torch.nn.modules.activation"
    return frame.site.method == "forward" and (own or builtin)


def count_parts(modules: dict[str, nn.Module]) -> dict[str, Part]:
    """Every module's parameters. A shared one counts where it is met first, so that sums add up."""
    first: dict[int, str] = {}
    parts: dict[str, Part] = {}
    for path, module in modules.items():
        part = parts[path] = Part(type(module).__name__, 0)
        count = 0
        for name, parameter in module._parameters.items():  # named_parameters() takes five times as long
            if parameter is None:
                continue
            if id(parameter) in first:
                part.shared.append(first[id(parameter)])
                continue
            first[id(parameter)] = f"{path}.{name}" if path else name
            count += parameter.numel()
        if count:
            for above in ancestors(path):
                parts[above].parameters += count
    return parts


def ancestors(path: str) -> Iterator[str]:
    """The path, those it lies in, and "" for the model."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
