"""Gradients of arguments, results and parameters, during a backward inside a trace."""

from functools import partial

import torch
from torch import Tensor, nn

from tracing.records import Call, NonFinite
from tracing.result import Trace
from tracing.tensors import TensorRecords


class GradientHooks:
    """Puts hooks on the arguments and results of calls, which note gradient norms and the first NaN or Inf."""

    def __init__(self, trace: Trace, tensors: TensorRecords):
        self.trace, self.tensors = trace, tensors
        self.bad_grads: set[int] = set()  # calls whose results got a gradient with NaN or Inf
        self.finished = False

    def on_arguments(self, call: Call, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments, with hooks."""
        args = tuple(self.hook(x, call, "argument", str(i)) for i, x in enumerate(args))
        return args, {k: self.hook(x, call, "argument", k) for k, x in kwargs.items()}

    def on_results(self, call: Call, out):
        """The results, with hooks."""
        if type(out) not in (tuple, list):
            return self.hook(out, call, "result", call.outputs[0].name if call.outputs else "")
        names = [value.name for value in call.outputs]
        names = names if len(names) == len(out) else [f"[{i}]" for i in range(len(out))]
        return type(out)(self.hook(x, call, "result", name) for x, name in zip(out, names, strict=True))

    def hook(self, x, call: Call, side: str, name: str):
        """x, or an alias of x whose hook sees the gradient of this use of x alone."""
        if not (isinstance(x, Tensor) and x.requires_grad) or torch.jit.is_tracing():
            return x
        alias = x.view_as(x)
        alias.register_hook(partial(self.note_gradient, call, side, name))
        value = next((v for v in call.outputs if v.name == name), None) if side == "result" else None
        if earlier := self.tensors.earlier(x):
            self.tensors.remember(alias, value or earlier)
        return alias

    def note_gradient(self, call: Call, side: str, name: str, grad: Tensor) -> None:
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
            if call is self.trace.calls[0] and self.trace.backward_origin is None:
                self.note_origin(call, "a NaN or Inf gradient, arriving from the loss: none was")
        elif id(call) not in self.bad_grads and self.trace.backward_origin is None:
            self.note_origin(call, "NaN or Inf")

    def note_origin(self, call: Call, what: str) -> None:
        self.trace.backward_origin = NonFinite(call.path, call.method, call.kind, call.index, "backward", what)

    def finish(self, modules: dict[str, nn.Module]) -> None:
        """Note the gradient norms of parameters; later gradients are ignored."""
        self.finished = True
        for path, part in self.trace.parts.items():
            own = modules[path].parameters(recurse=False) if path in modules else ()
            grads = [p.grad for p in own if p.grad is not None]
            if grads:
                part.grad_norm = grad_norm(grads)


def grad_norm(grads: list[Tensor]) -> float:
    """The L2 norm of all elements; NaN or Inf only if an element is."""
    return sum(g.double().square().sum().item() for g in grads) ** 0.5
