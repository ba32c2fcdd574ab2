"""A model whose parameters, gradients and optimizer states lie in equal parts in the processes of a run: train.shard.

torch's `fully_shard` (FSDP2) takes each block and then the rest, so a process holds two blocks at a time and what is
outside the blocks. Rajbhandari et al. 2019, arXiv:1910.02054, stage 3; Zhao et al. 2023, arXiv:2304.11277. Weights are
sent as float32 and computed with under autocast: the run is that of one process.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from config import TrainConfig
from modules.across import full, is_sharded
from modules.block import Block
from objective import Objective
from optim import Optimizers, make_optimizer


class Whole(NamedTuple):
    """What one process would train."""

    objective: Objective
    averaged: Objective | None
    optimizer: "Optimizers | WholeOptimizer | None"  # that can be saved or loaded
    gathered: bool = False  # whether the parameters and the optimizer's state are copies on the CPU


def sharded(
    objective: Objective, averaged: Objective | None, cfg: TrainConfig, processes: int, device: torch.device,
) -> "Sharded | None":
    """Shard what is trained, in place; None = it stays whole."""
    return Sharded(objective, averaged, cfg, device) if cfg.shard and processes > 1 else None


class Sharded:
    """Sharded objectives and their optimizer, which are put together to be saved, loaded or sampled from."""

    def __init__(self, objective: Objective, averaged: Objective | None, cfg: TrainConfig, device: torch.device):
        mesh = distributed.init_device_mesh(device.type, (distributed.get_world_size(),))
        self._objective = Twins(objective, mesh, compiled=cfg.compile)
        self._averaged = averaged and Twins(averaged, mesh)
        self.optimizer = make_optimizer(objective.model, cfg)

    @contextmanager
    def gathered(self, *, keep: bool, with_optimizer: bool) -> Iterator[Whole]:
        """Whole weights, and the optimizer's state, in the processes that `keep` them. All must enter it."""
        optimizer = WholeOptimizer(self.optimizer)
        if with_optimizer:
            optimizer.gather(keep=keep)
        with ExitStack() as stack:
            twins = [twins and stack.enter_context(twins.gathered(keep=keep, on_cpu=with_optimizer))
                     for twins in (self._objective, self._averaged)]
            yield Whole(*twins, optimizer, gathered=with_optimizer)

    @contextmanager
    def scattering(self) -> Iterator[Whole]:
        """Of the whole weights and optimizer state that are loaded in the block, each process takes its part."""
        with ExitStack() as stack:
            yield Whole(stack.enter_context(self._objective.scattering()),
                        self._averaged and stack.enter_context(self._averaged.scattering()),
                        WholeOptimizer(self.optimizer))


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
    def gathered(self, *, keep: bool, on_cpu: bool) -> Iterator[Objective]:
        """The twin, which has the weights if this process is to `keep` them. All processes must enter it."""
        for shard, place in self._pairs:
            tensor = full(shard.detach())
            if keep:
                place.put(compact(tensor).cpu() if on_cpu else compact(tensor))
        try:
            yield self.twin
        finally:
            self._forget()

    @contextmanager
    def scattering(self) -> Iterator[Objective]:
        """The twin, from whose weights at the end of the block each process takes its part."""
        for shard, place in self._pairs:
            place.put(torch.empty(shard.shape, dtype=shard.dtype))
        try:
            yield self.twin
            with torch.no_grad():
                for shard, place in self._pairs:
                    shard.copy_(own_shard(place.get(), shard))
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

    def get(self) -> Tensor:
        return self[0][0].get_parameter(self[0][1]).detach()


def places(model: nn.Module) -> dict[int, Place]:
    """The place of each parameter, in the order of `parameters()`."""
    found: dict[int, Place] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(id(parameter), Place()).append((module, name))
    return found


class WholeOptimizer:
    """Optimizers of sharded parameters, with the state of those of one process."""

    def __init__(self, optimizer: Optimizers):
        self._optimizer, self._state = optimizer, None

    def gather(self, *, keep: bool) -> None:
        """Gather the state on the CPU of the processes that are to `keep` it. All processes must call it."""
        self._state = gathered(self._optimizer.state_dict(), keep=keep)

    def state_dict(self) -> list[dict[str, Any]] | None:
        return self._state

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take this process's parts of what one process saved. Raises what the optimizers raise."""
        ordered = [[p for group in part.param_groups for p in group["params"]] for part in self._optimizer.parts]
        parts = [own_shards(state, parameters) for state, parameters in zip(states, ordered, strict=False)]
        averages = [{"trained": state["trained"] and list(map(own_shard, state["trained"], ordered[0]))}
                    for state in states[len(parts):]]
        self._optimizer.load_state_dict([*parts, *averages])


def own_blocks(objective: Objective) -> list[nn.Module]:
    """The blocks that share no parameter with another part of the model, each once."""
    blocks = [part for part in objective.modules() if isinstance(part, Block)]
    inside = {part for block in blocks for part in block.modules()}
    owners = Counter(id(p) for block in blocks for p in block.parameters())
    owners.update(id(p) for part in objective.modules() if part not in inside for p in part.parameters(recurse=False))
    return [block for block in blocks if all(owners[id(p)] == 1 for p in block.parameters())]


def gathered(tree: Any, *, keep: bool) -> Any:
    """A copy of a tree, with whole tensors on the CPU, or None if this process is not to `keep` it."""
    if isinstance(tree, dict):
        found = {name: gathered(part, keep=keep) for name, part in tree.items()}
    elif isinstance(tree, list | tuple):
        found = [gathered(part, keep=keep) for part in tree]
    else:
        found = whole_copy(tree) if isinstance(tree, Tensor) else tree
    return found if keep else None


def whole_copy(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the CPU, put together from its parts. Shape: any."""
    return compact(full(tensor)).cpu() if is_sharded(tensor) else tensor.to("cpu", copy=True)


def compact(tensor: Tensor) -> Tensor:
    """A tensor that takes no more memory than it needs: what is put together from unequal parts has room for more."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def own_shards(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The state of one optimizer, its tensors sharded as their parameters are."""
    return state | {"state": {number: {name: own_shard(value, parameters[number]) for name, value in its.items()}
                              for number, its in state["state"].items()}}


def own_shard(value: Any, parameter: Tensor) -> Any:
    """This process's part of a tensor that has the shape of a parameter; anything else as it is."""
    from torch.distributed.tensor import distribute_tensor

    if not (isinstance(value, Tensor) and is_sharded(parameter) and value.shape == parameter.shape):
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements,
                             src_data_rank=None)
