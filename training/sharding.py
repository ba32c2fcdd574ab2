"""A model whose parameters, gradients and optimizer states lie in equal parts in the processes of a run: train.shard.

torch's `fully_shard` (FSDP2) takes each block and then the rest, so a process holds two blocks at a time and what is
outside the blocks. Rajbhandari et al. 2019, arXiv:1910.02054, stage 3; Zhao et al. 2023, arXiv:2304.11277. Weights are
sent as float32 and computed with under autocast: the run is that of one process.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from config import TrainConfig
from modules.across import full, is_sharded, local
from modules.block import own_blocks
from objective import Objective
from optim import Optimizers, make_optimizer
from run_store.parts import Part, SavedTensor
from training.group import PATIENCE
from training.snapshot import Frozen, Lasting


class Whole(NamedTuple):
    """What one process would train."""

    objective: Objective
    averaged: Objective | None


def sharded(
    objective: Objective, averaged: Objective | None, cfg: TrainConfig, processes: int, device: torch.device,
) -> "Sharded | None":
    """Shard what is trained, in place; None = it stays whole."""
    return Sharded(objective, averaged, cfg, device) if cfg.shard and processes > 1 else None


class Sharded:
    """Sharded objectives and their optimizer, which are saved and loaded in parts, and put together to be sampled from.

    Parts that are saved are sent in a group of their own, so that a thread can send them while training goes on.
    """

    def __init__(self, objective: Objective, averaged: Objective | None, cfg: TrainConfig, device: torch.device):
        mesh = distributed.init_device_mesh(device.type, (distributed.get_world_size(),))
        self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._objective = Twins(objective, mesh, compiled=cfg.compile)
        self._averaged = averaged and Twins(averaged, mesh)
        self._models = objective.model, averaged and averaged.model
        self.optimizer = make_optimizer(objective.model, cfg)

    @contextmanager
    def gathered(self, *, keep: bool) -> Iterator[Whole]:
        """Whole weights in the processes that `keep` them. All must enter it."""
        with ExitStack() as stack:
            yield Whole(*(twins and stack.enter_context(twins.gathered(keep=keep))
                          for twins in (self._objective, self._averaged)))

    def lasting(self) -> Lasting:
        """What is saved and loaded, in parts."""
        model, average = (model and Frozen(in_parts(model.state_dict(keep_vars=True), self._group))
                          for model in self._models)
        return Lasting(model, average, OptimizerInParts(self.optimizer, self._group))


class Twins:
    """An objective, sharded in place, and a twin that holds the whole parameters for a while.

    Both have the same buffers, which every process has whole.
    """

    def __init__(self, objective: Objective, mesh: distributed.DeviceMesh, *, compiled: bool = False):
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # half a second

        empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in objective.parameters()}
        self.twin = copy.deepcopy(objective, empty | {id(buffer): buffer for buffer in objective.buffers()})
        for block in own_blocks(objective):
            if compiled:
                block.compile()
            fully_shard(block, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        for score in (objective.score, *objective.other_scores().values()):
            register_fsdp_forward_method(objective, score.__name__)
        self._pairs = list(zip(objective.parameters(), places(self.twin).values(), strict=True))

    @contextmanager
    def gathered(self, *, keep: bool) -> Iterator[Objective]:
        """The twin, which has the weights if this process is to `keep` them. All processes must enter it."""
        for shard, place in self._pairs:
            tensor = full(shard.detach())
            if keep:
                place.put(compact(tensor))
        try:
            yield self.twin
        finally:
            self._forget()

    def _forget(self) -> None:
        for shard, place in self._pairs:
            place.put(torch.empty(shard.shape, dtype=shard.dtype, device="meta"))


class Place(list[tuple[nn.Module, str]]):
    """Where one parameter is: the modules that share it, and its name in each."""

    def put(self, tensor: Tensor) -> None:
        parameter = nn.Parameter(tensor)
        for module, name in self:
            module.register_parameter(name, parameter)


def places(model: nn.Module) -> dict[int, Place]:
    """The place of each parameter, in the order of `parameters()`."""
    found: dict[int, Place] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(id(parameter), Place()).append((module, name))
    return found


class OptimizerInParts(Frozen):
    """Optimizers of sharded parameters, with the parts of the state that those of one process have."""

    def __init__(self, optimizer: Optimizers, group: distributed.ProcessGroup):
        super().__init__(in_parts(optimizer.state_dict(), group))
        self._optimizer, self._group = optimizer, group

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Read this process's parts of what one process saved. Raises what the optimizers raise."""
        ordered = [[p for group in part.param_groups for p in group["params"]] for part in self._optimizer.parts]
        parts = [state | {"state": {number: {name: self._own(value, parameters[number]) for name, value in its.items()}
                                    for number, its in state["state"].items()}}
                 for state, parameters in zip(states, ordered, strict=False)]
        averages = [{"trained": state["trained"] and list(map(self._own, state["trained"], ordered[0]))}
                    for state in states[len(parts):]]
        self._optimizer.load_state_dict([*parts, *averages])

    def _own(self, value: Any, parameter: Tensor) -> Any:
        """This process's part of a saved tensor that has the shape of a parameter; anything else whole."""
        if not isinstance(value, SavedTensor):
            return value
        if not is_sharded(parameter) or value.shape != parameter.shape:
            return value[...]
        from torch.distributed.tensor import DTensor

        rows = torch.empty_like(local(parameter.detach()), dtype=value.dtype)
        Part(rows, value.shape, self._group).take(value)
        return DTensor.from_local(rows, parameter.device_mesh, parameter.placements, shape=value.shape,
                                  stride=parameter.stride())


def in_parts(states: Any, group: distributed.ProcessGroup) -> Any:
    """States with a Part for each sharded tensor; names that share a tensor share its part."""
    found: dict[int, Part] = {}

    def copied(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: copied(leaf) for name, leaf in tree.items()}
        if isinstance(tree, list | tuple):
            return [copied(leaf) for leaf in tree]
        if not is_sharded(tree):
            return tree
        return found.setdefault(id(tree), Part(local(tree.detach()), tree.shape, group))

    return copied(states)


def compact(tensor: Tensor) -> Tensor:
    """A tensor that takes no more memory than it needs: what is put together from unequal parts has room for more."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
