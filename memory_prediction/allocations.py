"""Log every storage that is allocated and freed inside a `with` block, so that peaks can be broken down."""

import bisect
import weakref
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
ALIGNMENT = {"cpu": 64, "cuda": 512}  # bytes; an allocation is rounded up to a multiple


class Storage(NamedTuple):
    """Memory that tensors share, and where in the run it was allocated."""

    num_bytes: int
    phase: str  # build, step, forward, backward, optimizer, evaluation, sampling
    module: str  # path of the module that made it, or whose gradient it is; "" = outside all modules
    operation: str


class Peak(NamedTuple):
    """The largest amount alive in one phase and module, and when."""

    num_bytes: int
    place: int  # entries of the log before it
    operation: str


class RunPosition:
    """Tracks the phase of training and the module that is running, in the forward and in the backward pass.

    The caller sets `phase`; within "step", forward, backward and optimizer are told apart here. `names` are the modules
    to tell apart, by id; other modules count as the one around them.
    """

    def __init__(self):
        self.phase, self.names = "build", {}
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
        return self.modules[-1] if self.modules else ""

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


class StorageLog(TorchDispatchMode):
    """Logs storages and counts the bytes alive; for fake tensors as for real ones.

    `entries` lists each storage when it is made (+key) and freed (-key). Memory inside kernels is not visible here.
    """

    def __init__(self, *, device: str = "cpu"):
        super().__init__()
        self.position, self.alignment, self.alive_bytes = RunPosition(), ALIGNMENT[device], 0
        self.storages: dict[int, Storage] = {}
        self.entries: list[int] = []
        self.products: set[tuple] = set()  # of oneDNN, by shape: it keeps a program for each
        self.keys: dict[int, int] = {}  # address -> key of the storages alive
        self.peaks: dict[tuple[str, str], Peak] = {}  # by phase and module
        self.references: dict[int, weakref.ref] = {}

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
        result = self.run(function, args, kwargs or {})
        before = len(self.entries)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._see(x, function)
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
        self.storages[key] = Storage(num_bytes, *self.position.now(), str(function))
        self.keys[address] = key
        self.references[key] = weakref.ref(storage, lambda _: self._free(address, key))
        self.entries.append(key)
        self.alive_bytes += num_bytes

    def _free(self, address: int, key: int) -> None:
        del self.keys[address], self.references[key]
        self.alive_bytes -= self.storages[key].num_bytes
        self.entries.append(-key)

    def _note_peak(self, function) -> None:
        here = self.position.now()
        if here not in self.peaks or self.alive_bytes > self.peaks[here].num_bytes:
            self.peaks[here] = Peak(self.alive_bytes, len(self.entries), str(function))

    def key_of(self, x: Tensor) -> int | None:
        """The key of a tensor's storage, if it was made here."""
        return self.keys.get(x.untyped_storage()._cdata)

    def alive_at(self, place: int) -> dict[int, int]:
        """The bytes of the storages alive after `place` entries of the log, by key."""
        alive: dict[int, int] = {}
        for entry in self.entries[:place]:
            if entry > 0:
                alive[entry] = self.storages[entry].num_bytes
            else:
                del alive[-entry]
        return alive
