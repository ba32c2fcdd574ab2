"""A model for generating: the same code, without what a call of a module costs besides it.

`lean(model)` is a copy of the modules, which share their tensors with it. Its classes are those of the model with
another `__call__`, and with the kernels and forms below and in modules/lean_forms.py, whose plain forms are the methods
that they stand for. A small model spends most of the time of a decoded token around its kernels.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as registry

from modules.attend import SDPA
from modules.lean_forms import QuickNorm, TurnedHalves, TurnedNeighbours, weighted_mean
from modules.linear import MIN_PRODUCTS, Linear, is_onednns, product
from modules.mixers.attention import Attention, Turn, what_is_seen
from modules.mixers.blocked import Bias
from modules.mixers.earlier import Projections
from modules.mixers.kv_cache import Keys
from modules.mlps.dense import GLU
from modules.norm import RMSNorm
from modules.rope import InterleavedRoPE, RoPE
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
    return _lean(model, Shared(sum(p.numel() for p in model.parameters())), is_whole=True)


class Shared:
    """What the parts of a lean model have in common."""

    def __init__(self, num_parameters: int):
        self.num_parameters = num_parameters
        self.made: dict[Hashable, tuple[Any, Any]] = {}  # in this forward, and what it was made of
        self.rotations: list[RoPE] = []  # those with other frequencies or pairs than the ones before

    def once(self, key: Hashable, told: Any, make: Callable[[Any], Any]) -> Any:
        """make(told), made once in a forward for all who ask for it with the same key and the same object."""
        before, found = self.made.get(key, (None, None))
        if before is not told:
            found = make(told)
            self.made[key] = told, found
        return found


def _lean(part: nn.Module, shared: Shared, *, is_whole: bool = False) -> nn.Module:
    own = vars(part)
    if any(own.get(name) for name in HOOKS) or "forward" in own or isinstance(part, torch.jit.ScriptModule):
        return part
    form = form_of(type(part))
    form = form if form and own.keys().isdisjoint(form.stands_for) else None
    twin = object.__new__(lean_class(type(part), form, is_whole=is_whole))
    vars(twin).update(own)
    inner = {name: child and _lean(child, shared) for name, child in own["_modules"].items()}
    vars(twin).update(own["_parameters"] | own["_buffers"] | inner)  # found at once
    vars(twin).update(_modules=inner, lean_shared=shared)
    return twin


@cache
def form_of(kind: type[nn.Module]) -> type | None:
    """The quicker form of a class, if the class has what the form stands for as it was."""
    for base, form in FORMS.items():
        if issubclass(kind, base) and all(getattr(kind, name) is getattr(base, name) for name in form.stands_for):
            return form
    return None


@cache
def lean_class(kind: type[nn.Module], form: type | None, *, is_whole: bool) -> type[nn.Module]:
    """A class whose objects are called by their forward, or by a kernel in its place; of the whole, by a new one."""
    formed = type(kind.__name__, (form, kind), {}) if form else kind
    call = KERNELS.get(kind, formed.forward)
    return type(kind.__name__, (formed,), {"__call__": anew(call) if is_whole else call})


def anew(call: Callable) -> Callable:
    """The same call, which begins a forward: what was made for the one before is forgotten."""
    def begin(part: nn.Module, *args: Any, **options: Any) -> Any:
        part.lean_shared.made.clear()
        return call(part, *args, **options)

    return begin


def unchanged(part: nn.Module, x: Tensor) -> Tensor:
    return x


# ---- products ----

MIN_NUMBERS, MIN_MODEL = 2**18, 2**22  # of a matrix that one row is multiplied with; a model below stays in a cache
MOST_PACKED = 2**25  # numbers in a model whose matrices are copied, side by side and in other orders: 128 MiB each


def linear(part: nn.Linear, x: Tensor) -> Tensor:
    """x W^T + b, in the order of W's numbers that is read fastest. Shape: (..., d) -> (..., f).

    MKL goes along the rows of W at a third of the rate of memory for one row of x; along its columns, or in oneDNN's
    order, at two thirds. Products of many rows take oneDNN half of the time.
    """
    weight = part.weight
    if is_onednns(x, weight):
        size, rows = weight.numel(), x.numel() // weight.shape[1]
        if rows > 1 and rows * size >= MIN_PRODUCTS:
            return product(x, packed(part), part.bias)
        if rows == 1 and is_read_again(part):
            if size >= MIN_NUMBERS and part.lean_shared.num_parameters >= MIN_MODEL:
                return product(x, packed(part), part.bias)
            weight = in_columns(part)
    return functional.linear(x, weight, part.bias)


def is_read_again(part: nn.Linear) -> bool:
    """Whether a part of a small model has been called before; only then a copy in another order pays."""
    own = vars(part)
    if own.get("is_read"):
        return part.lean_shared.num_parameters <= MOST_PACKED
    own["is_read"] = True
    return False


def packed(part: nn.Linear) -> Tensor:
    """The weight, in a small model in oneDNN's order. Shape: (f, d)."""
    own = vars(part)
    if "packed" not in own and is_read_again(part):
        own["packed"] = torch.ops.mkldnn._reorder_linear_weight(part.weight.detach())
    return own.get("packed", part.weight)


def in_columns(part: nn.Linear) -> Tensor:
    """The weight, whose columns lie together. Shape: (f, d)."""
    own = vars(part)
    if "columns" not in own:
        own["columns"] = part.weight.detach().t().contiguous().t()
    return own["columns"]


# ---- several maps of one input ----


class Joined:
    """Maps that read the same are one product in a small model, from its first single token on."""

    maps: tuple[str, ...]

    def joined(self, x: Tensor) -> nn.Linear | None:
        """All maps as one, for x (b, t, d); None = they are called one by one."""
        return self.whole if "whole" in vars(self) or x.dim() == 3 and x.shape[1] == 1 else None

    @cached_property
    def whole(self) -> nn.Linear | None:
        parts = [getattr(self, name) for name in self.maps]
        is_small = self.lean_shared.num_parameters <= MOST_PACKED
        return side_by_side(parts) if is_small and all(is_called(part, linear) for part in parts) else None


def side_by_side(parts: Sequence[nn.Linear]) -> nn.Linear:
    """A map to what all of them give, one after the other."""
    whole, weights, bias = object.__new__(type(parts[0])), [part.weight.detach() for part in parts], None
    if any(part.bias is not None for part in parts):
        bias = torch.cat([weight.new_zeros(len(weight)) if part.bias is None else part.bias.detach()
                          for part, weight in zip(parts, weights, strict=True)])
    vars(whole).update(weight=torch.cat(weights), bias=bias, lean_shared=parts[0].lean_shared, is_read=True)
    return whole


def is_called(part: nn.Module, call: Callable) -> bool:
    """Whether a part of a lean model is called by this kernel: it has no hook, and no forward of its own."""
    return type(part).__call__ is call


class JoinedGLU(Joined):
    """The gate and what it acts on are one product."""

    stands_for = ("read", "maps")

    def read(self, x: Tensor, *groups: Tensor) -> tuple[Tensor, ...]:
        whole = None if groups else self.joined(x)
        return super().read(x, *groups) if whole is None else whole(x).chunk(2, dim=-1)


# ---- attention of one token of each text to those in a cache ----


class OneQuery(Joined):
    """Attention whose heads are views, and whose mask is made once for all layers of a forward."""

    stands_for = ("project", "queries", "keys_and_values", "look_at")
    maps = ("q", "k", "v")
    lean_shared: Shared

    def project(
        self, x: Tensor, positions: Tensor, *, mix: Callable[..., Projections] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        whole = self.joined(x) if mix is None else None
        if whole is None:
            return super().project(x, positions, mix=mix)
        y, turn, g = whole(x), self.turn_at(positions), self.k.out_features // self.head_dim
        if self.is_plain:
            heads = self.split(y)  # (b, h + 2g, t, p)
            turned = turn(heads[:, :-g])
            q, k, v = turned[:, :-g], turned[:, -g:], heads[:, -g:]
        else:
            q, k, v = y.split([getattr(self, name).out_features for name in self.maps], dim=-1)
            q, (k, v) = self.queries(q, turn), self.keys_and_values(k, v, turn)
        return self.tempered(q, positions), k, v

    @cached_property
    def is_plain(self) -> bool:
        """Whether queries and keys are turned and no more."""
        parts = (self.q_full_norm, self.k_full_norm, self.q_norm, self.k_norm, self.q_post_norm, self.k_post_norm)
        turns = self.rotary is None or hasattr(self.rotary, "lean_shared")
        return turns and all(is_called(part, unchanged) for part in (*parts, self.clip))

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
        plain = bias_of is None and self.exclusive is None and is_called(self.attend, SDPA.forward)
        if q.shape[2] > 1 or not plain:
            return super().look_at(q, keys, bias_of, context)
        k, v, places = keys
        b, g, s, p = k.shape
        scale, seen = self.attend.scale, self.seen(context, places)
        if q.is_cpu and q.dtype == torch.float32:
            q, k, v = q.reshape(b * g, -1, p), k.reshape(b * g, s, p), v.reshape(b * g, s, p)
            return weighted_mean(q, k, v, seen, scale).view(b, 1, -1)
        y = functional.scaled_dot_product_attention(q.reshape(b, g, -1, p), k, v, attn_mask=seen, scale=scale)
        return y.reshape(b, 1, -1)

    def seen(self, context: Context, places: Tensor) -> Tensor | None:
        """What the queries see of the keys; None = all. Shape: (b or 1, 1, 1, s), or (1, s)."""
        def look(context: Context) -> Tensor | None:
            return what_is_seen(context, places, pattern=self.pattern, fresh=False).allowed

        return self.lean_shared.once(self.pattern, context, look)


KERNELS = {Linear: linear, nn.Linear: linear, nn.Identity: unchanged, nn.Dropout: unchanged}
FORMS = {Attention: OneQuery, GLU: JoinedGLU, RMSNorm: QuickNorm, InterleavedRoPE: TurnedNeighbours, RoPE: TurnedHalves}
