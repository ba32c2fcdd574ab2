"""A copy of what a checkpoint holds, which is written while training goes on."""

import copy
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from run_store.checkpoint import Progress
from run_store.checkpoint_files import random_state
from training.sharding import Whole


class Stateful(Protocol):
    """A model, an optimizer, or a copy of one's states."""

    def state_dict(self) -> Any: ...


class Frozen:
    """Stands for a model or an optimizer when it is saved: it has the states of the moment at which it was made."""

    def __init__(self, states: Any):
        self._states = states

    def state_dict(self) -> Any:
        return self._states


class Snapshot(NamedTuple):
    """What Run.save takes."""

    model: Stateful
    optimizer: Stateful
    progress: Progress
    average: Stateful | None
    random: list[Tensor]  # see random_state

    @classmethod
    def of(cls, whole: Whole, progress: Progress) -> "Snapshot":
        """Copy all that training changes to the CPU; what was gathered there is a copy already."""
        gathered = whole.gathered
        optimizer = whole.optimizer if gathered else Frozen(copied(whole.optimizer.state_dict()))
        model, average = (objective and Frozen(copied(objective.model.state_dict(keep_vars=True), gathered=gathered))
                          for objective in (whole.objective, whole.averaged))
        return cls(model, optimizer, copy.deepcopy(progress), average, random_state())


def copied(states: Any, *, gathered: bool = False) -> Any:
    """A deep copy of states with its tensors on the CPU; names that share a tensor share its copy.

    If parameters were `gathered`, only the buffers beside them are copied.
    """
    tensors = {id(leaf): leaf for leaf in tree_leaves(states) if isinstance(leaf, Tensor)}
    copies = {key: tensor.detach() if gathered and isinstance(tensor, nn.Parameter)
              else tensor.detach().to("cpu", copy=True) for key, tensor in tensors.items()}
    return copy.deepcopy(states, copies)
