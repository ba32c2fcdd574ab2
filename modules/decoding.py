"""A model for generating: the same code, without what a call of a module costs besides it.

`lean(model)` is a copy of the modules, which share their tensors with it. Its classes are those of the model with
another `__call__`, and with the kernels below, whose plain forms are the methods that they stand for. A small model
spends most of the time of a decoded token around its kernels.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as registry

from modules.attend import SDPA
from modules.linear import Linear, by_onednn, product
from modules.masks import Pattern
from modules.mixers.attention import Attention, Turn, what_is_seen
from modules.mixers.blocked import Bias
from modules.mixers.kv_cache import Keys
from modules.stream import Context
from tools import is_watched

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_compiled_call_impl")  # of a module
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")  # of all modules


def lean(model: nn.Module) -> nn.Module:
    """The model, for forwards in evaluation without a gradient, for as long as its weights stay what they are.

    A part with a hook or a forward of its own is called as ever, with all that is in it; so is the whole model while a
    trace or live logging watches one.
    """
    if is_watched() or any(getattr(registry, name) for name in GLOBAL_HOOKS):
        return model
    return _lean(model, Shared(sum(p.numel() for p in model.parameters())))


class Shared:
    """What the parts of a lean model have in common."""

    def __init__(self, num_parameters: int):
        self.num_parameters = num_parameters
        self.seen: dict[Pattern, tuple[Context, Tensor | None]] = {}  # the newest context, and what its queries see


def _lean(part: nn.Module, shared: Shared) -> nn.Module:
    own = vars(part)
    if any(own.get(name) for name in HOOKS) or "forward" in own or isinstance(part, torch.jit.ScriptModule):
        return part
    twin = object.__new__(lean_class(type(part)))
    vars(twin).update(own)
    inner = {name: child and _lean(child, shared) for name, child in own["_modules"].items()}
    vars(twin).update(own["_parameters"] | own["_buffers"] | inner)  # found at once
    vars(twin).update(_modules=inner, lean_shared=shared)
    return twin


@cache
def lean_class(kind: type[nn.Module]) -> type[nn.Module]:
    """A class whose objects are called by their forward, or by a kernel in its place."""
    if issubclass(kind, Attention):
        kind = type(kind.__name__, (OneQuery, kind), {})
    return type(kind.__name__, (kind,), {"__call__": KERNELS.get(kind, kind.forward)})


def unchanged(part: nn.Module, x: Tensor) -> Tensor:
    return x


# ---- products ----

MOST_PACKED = 2**25  # numbers in a model whose matrices are copied in oneDNN's order, which takes 128 MiB


def linear(part: nn.Linear, x: Tensor) -> Tensor:
    """x W^T + b, of many rows by oneDNN where that is twice as fast. Shape: (..., d) -> (..., f)."""
    if by_onednn(x, part.weight):
        return product(x, packed(part), part.bias)
    return functional.linear(x, part.weight, part.bias)


def packed(part: nn.Linear) -> Tensor:
    """The weight as it is; from the second product on, in a small model, in oneDNN's order. Shape: (f, d)."""
    own = vars(part)
    ordered = own.get("ordered")
    if ordered is part.weight and part.lean_shared.num_parameters <= MOST_PACKED:
        own["ordered"] = torch.ops.mkldnn._reorder_linear_weight(part.weight.detach())
    elif ordered is None:
        own["ordered"] = part.weight
    return own["ordered"]


# ---- attention of one token of each text to those in a cache ----


class OneQuery:
    """Attention whose heads are views, and whose mask is made once for all layers of a forward."""

    lean_shared: Shared

    def queries(self, q: Tensor, turn: Turn) -> Tensor:
        return self.q_post_norm(turn(self.q_norm(self.split(self.clip(self.q_full_norm(q))))))

    def keys_and_values(self, k: Tensor, v: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        k, v = self.split(self.clip(self.k_full_norm(k))), self.split(self.clip(v))
        return self.k_post_norm(turn(self.k_norm(k))), v

    def split(self, x: Tensor) -> Tensor:
        """Shape: (b, t, h p) -> (b, h, t, p)."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def look_at(self, q: Tensor, keys: Keys, bias_of: Bias | None, context: Context) -> Tensor:
        """Query heads that share keys are the rows of one product. Shape: -> (b, t, h p)."""
        if q.shape[2] > 1 or bias_of is not None or self.exclusive is not None or not isinstance(self.attend, SDPA):
            return super().look_at(q, keys, bias_of, context)
        k, v, places = keys
        b, g, _, p = k.shape
        y = functional.scaled_dot_product_attention(
            q.reshape(b, g, -1, p), k, v, attn_mask=self.seen(context, places), scale=self.attend.scale)
        return y.reshape(b, 1, -1)

    def seen(self, context: Context, places: Tensor) -> Tensor | None:
        """What the queries see of the keys; None = all. Shape: (b or 1, 1, 1, s), or (1, s)."""
        told, allowed = self.lean_shared.seen.get(self.pattern, (None, None))
        if told is not context:
            allowed = what_is_seen(context, places, pattern=self.pattern, fresh=False).allowed
            self.lean_shared.seen[self.pattern] = context, allowed
        return allowed


KERNELS = {Linear: linear, nn.Linear: linear, nn.Identity: unchanged, nn.Dropout: unchanged}
