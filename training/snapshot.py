"""What a checkpoint holds; and a copy of it, which is written while training goes on."""

import copy
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils._pytree import tree_leaves

from run_store.checkpoint import Progress
from run_store.checkpoint_files import parts_to_send, random_state
from run_store.parts import Part


class Stateful(Protocol):
    """A model, an optimizer, or what stands for one."""

    def state_dict(self, *, keep_vars: bool = False) -> Any: ...


class Lasting(NamedTuple):
    """What is saved and loaded of the state of training."""

    model: Stateful
    average: Stateful | None
    optimizer: Stateful


class Frozen:
    """Stands for a model or an optimizer when it is saved: it has the states of the moment at which it was made."""

    def __init__(self, states: Any):
        self._states = states

    def state_dict(self, *, keep_vars: bool = False) -> Any:
        return self._states


class Snapshot(NamedTuple):
    """What Run.save takes."""

    model: Stateful
    optimizer: Stateful
    progress: Progress
    average: Stateful | None
    random: list[Tensor] | None = None  # see random_state; None = as it is when it is written

    @classmethod
    def of(cls, lasting: Lasting, progress: Progress) -> "Snapshot":
        """Copy all that training changes to the CPU; of what lies in several processes, this process's parts."""
        optimizer = Frozen(copied(lasting.optimizer.state_dict()))
        model, average = (holder and Frozen(copied(holder.state_dict(keep_vars=True)))
                          for holder in (lasting.model, lasting.average))
        return cls(model, optimizer, copy.deepcopy(progress), average, random_state())

    def parts(self) -> list[Part]:
        """What lies in parts in several processes, in the order in which it is written."""
        return parts_to_send(self.model, self.optimizer, self.average)


def copied(states: Any) -> Any:
    """A deep copy of states with its tensors on the CPU; names that share a tensor share its copy."""
    leaves = {id(leaf): leaf for leaf in tree_leaves(states) if isinstance(leaf, Tensor | Part)}
    copies = {key: leaf.copied() if isinstance(leaf, Part) else leaf.detach().to("cpu", copy=True)
              for key, leaf in leaves.items()}
    return copy.deepcopy(states, copies)
