"""Log every storage that is allocated and freed inside a `with` block, so that peaks can be broken down."""

import bisect
import mmap
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
PRODUCTS = (ATEN.mm.default, ATEN.bmm.default, ATEN.addmm.default, ATEN.baddbmm.default)
HELD_BY_AUTOGRAD = 4, 4  # references in Python and in C++ to a tensor that autograd alone holds, while it adds to it
GROUP_SIZES = 8  # numbers of rows, at most a quarter apart, that groups of rows have, about
EMPTY = (ATEN.empty.memory_format, ATEN.new_empty.default, ATEN.empty_like.default)
PAGE = mmap.PAGESIZE
ALIGNMENT = {"cpu": 64, "cuda": 512}  # bytes; an allocation is rounded up to a multiple


class Storage(NamedTuple):
    """Memory that tensors share, and where in the run it was allocated."""

    phase: str  # build, step, forward, backward, optimizer, evaluation, sampling
    module: str  # path of the module that made it, or whose gradient it is; "" = outside all modules
    operation: str


class Peak(NamedTuple):
    """The largest amount alive in one phase and module, and when."""

    num_bytes: int
    place: int  # entries of the log before it
    operation: str
    unwritten_bytes: int  # which were asked for besides


class RunPosition:
    """Tracks the phase of training and the module that is running, in the forward and in the backward pass.

    The caller sets `phase`; within "step", forward, backward and optimizer are told apart here. `names` are the modules
    to tell apart, by id; other modules count as the one around them.
    """

    def __init__(self):
        self.phase, self.names, self.outside = "build", {}, ""  # outside: the module of what no module makes
        self.modules: list[str] = []  # that are running, the innermost last
        self.begun: list[tuple[int, str]] = []  # (autograd's next sequence number, module) at each change of module

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Follow modules and optimizers inside the block."""
        with ExitStack() as stack:
            for hook in (register_module_forward_pre_hook(self._enter),
                         register_module_forward_hook(self._leave, always_call=True),
                         register_optimizer_step_pre_hook(self._begin_step),
                         register_optimizer_step_post_hook(self._end_step)):
                stack.callback(hook.remove)
            yield

    def _enter(self, module: nn.Module, _) -> None:
        self.modules.append(self.names.get(id(module), self._module()))
        self._note_module()

    def _leave(self, *_) -> None:
        self.modules.pop()
        self._note_module()

    def _module(self) -> str:
        return self.modules[-1] if self.modules else self.outside

    def _note_module(self) -> None:
        self.begun.append((torch._C._autograd._get_sequence_nr(), self._module()))

    def _begin_step(self, *_) -> None:
        self._outer, self.phase = self.phase, "optimizer"

    def _end_step(self, *_) -> None:
        self.phase = self._outer

    def now(self) -> tuple[str, str]:
        """The current phase and module."""
        if torch._C._current_graph_task_id() == -1:
            module = self._module()
            return "forward" if module and self.phase == "step" else self.phase, module
        if self.modules:  # recomputed for the gradient
            return "backward", self.modules[-1]
        node = torch._C._current_autograd_node()
        number = node._sequence_nr() if node is not None else -1
        place = bisect.bisect_right(self.begun, number, key=lambda entry: entry[0]) - 1
        return "backward", self.begun[place][1] if place >= 0 and number < 2**63 else ""


def is_summed_in_place(sum_: Tensor, x: Tensor | complex) -> bool:
    """Whether autograd, which calls this addition, adds x to its sum of gradients, since no one else holds the sum.

    In a dispatch mode it makes a new tensor instead.
    """
    return (torch._C._current_graph_task_id() != -1 and isinstance(x, Tensor) and sum_.shape == x.shape
            and (sys.getrefcount(sum_), sum_._use_count()) == HELD_BY_AUTOGRAD)


def pages_of(x: Tensor) -> int:
    """The bytes of the pages in which the numbers of a tensor are, about: each run of neighbours begins within one."""
    run = 1  # numbers that lie together
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if size > 1 and stride != run:
            break
        run *= size
    return x.numel() // run * (run * x.itemsize + PAGE) if x.numel() else 0


class StorageLog(TorchDispatchMode):
    """Logs storages and counts the bytes alive; for fake tensors as for real ones.

    `entries` lists each storage when it is made and freed, by its key, with the bytes that it then takes more. One that
    is made empty takes what is written to it, by pages: the system gives no others. Memory inside kernels is not
    visible here.
    """

    def __init__(self, *, device: str = "cpu"):
        super().__init__()
        self.position, self.alignment, self.alive_bytes = RunPosition(), ALIGNMENT[device], 0
        self.storages: dict[int, Storage] = {}
        self.entries: list[tuple[int, int]] = []
        self.products: set[tuple] = set()  # of oneDNN, by shape: it keeps a program for each
        self.keys: dict[int, int] = {}  # address -> key of the storages alive
        self.peaks: dict[tuple[str, str], Peak] = {}  # by phase and module
        self.references: dict[int, weakref.ref] = {}
        self.taken: dict[int, int] = {}  # key -> bytes of the storages alive
        self.unwritten: dict[int, int] = {}  # key -> bytes of the same to which nothing was written, if there are any

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True wraps every operation once more

    @contextmanager
    def watching(self) -> Iterator["StorageLog"]:
        """Log inside the block."""
        with self.position.tracked(), self:
            yield self

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled() and function.namespace == "aten":
            # outside inference mode, composite operations are decomposed before they come here
            with self:
                result = function.decompose(*args, **kwargs or {})
            if result is not NotImplemented:
                return result
        if function in PRODUCTS and args[-1].dtype == torch.bfloat16 or function.namespace == "mkldnn":
            self.products.add((function, *(x.shape for x in args if isinstance(x, Tensor))))
        if "grouped" in function.__name__ and args[0].dtype == torch.bfloat16:
            self.products |= {(function, args[0].shape, args[1].shape, number) for number in range(GROUP_SIZES)}
        if function is ATEN.add.Tensor and is_summed_in_place(*args):
            function = ATEN.add_.Tensor
        if function.namespace == "mkldnn" and "reorder" in function.__name__:  # in an order without a storage to see
            function, args = ATEN.clone.default, args[:1]
        result = self.run(function, args, kwargs or {})
        before = len(self.entries)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._see(x, function)
        if self.unwritten and function._schema.is_mutable:
            self._write([x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)])
        if len(self.entries) > before:
            self._note_peak(function)
        return result

    def run(self, function, args, kwargs):
        """Run an operation."""
        return function(*args, **kwargs)

    def _see(self, x: Tensor, function) -> None:
        storage = x.untyped_storage()
        address = storage._cdata
        if address in self.keys:
            return
        key = len(self.storages) + 1
        num_bytes = -(-storage.nbytes() // self.alignment) * self.alignment
        self.storages[key] = Storage(*self.position.now(), str(function))
        self.keys[address] = key
        self.references[key] = weakref.ref(storage, lambda _: self._free(address, key))
        is_empty = function in EMPTY and self.alignment == ALIGNMENT["cpu"]
        if is_empty:
            self.unwritten[key] = num_bytes
        self._take(key, 0 if is_empty else num_bytes)

    def _write(self, tensors: list[Tensor]) -> None:
        """Note that an operation writes to some of these tensors: to those that were made empty."""
        for x in tensors:
            key = self.key_of(x)
            if left := self.unwritten.pop(key, 0):
                num_bytes = min(left, pages_of(x))
                self._take(key, num_bytes)
                if num_bytes < left:
                    self.unwritten[key] = left - num_bytes

    def _take(self, key: int, num_bytes: int) -> None:
        self.taken[key] = self.taken.get(key, 0) + num_bytes
        self.entries.append((key, num_bytes))
        self.alive_bytes += num_bytes

    def _free(self, address: int, key: int) -> None:
        self._take(key, -self.taken[key])
        del self.keys[address], self.references[key], self.taken[key]
        self.unwritten.pop(key, None)

    @property
    def asked_bytes(self) -> int:
        """What was asked for and is not freed, written to or not."""
        return self.alive_bytes + sum(self.unwritten.values())

    def _note_peak(self, function) -> None:
        here = self.position.now()
        if here not in self.peaks or self.alive_bytes > self.peaks[here].num_bytes:
            unwritten = self.asked_bytes - self.alive_bytes
            self.peaks[here] = Peak(self.alive_bytes, len(self.entries), str(function), unwritten)

    def key_of(self, x: Tensor) -> int | None:
        """The key of a tensor's storage, if it was made here."""
        return self.keys.get(x.untyped_storage()._cdata)

    def alive_at(self, place: int) -> dict[int, int]:
        """The bytes of the storages alive after `place` entries of the log, by key."""
        alive = Counter()
        for key, num_bytes in self.entries[:place]:
            alive[key] += num_bytes
        return {key: num_bytes for key, num_bytes in alive.items() if num_bytes}
