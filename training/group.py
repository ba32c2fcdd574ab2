"""The processes that train one run together, started by `torchrun --nproc-per-node N train.py ...`.

Each has the whole model and an equal part of the rows of each batch. Gradients are averaged by torch's
DistributedDataParallel; whatever decides how training goes on is decided on numbers of all processes, so that none
waits for another that has left. The first process alone prints, writes, samples and grades.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from modules.across import counted_together

GLOO = "gloo"  # what it raises when another process has died has its name, and no class of its own
PATIENCE = timedelta(days=1)  # the others wait while the first grades; a process that has died is noticed at once


class PeerLost(Exception):
    """Another process of the group has ended."""


@dataclass(frozen=True)
class Group:
    """The processes of a run, of which this is number `rank`. Alone, every method gives back what it is given."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # on which numbers are exchanged

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    @contextlib.contextmanager
    def in_turns(self) -> Iterator[None]:
        """The first process goes through the block before the others, which find the files that it has made."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """The sum of each number over the processes."""
        return [round(number) for number in self._reduced(numbers, distributed.ReduceOp.SUM)]

    def means(self, numbers: Sequence[float]) -> list[float]:
        """The mean of each number over the processes."""
        return [number / self.size for number in self._reduced(numbers, distributed.ReduceOp.SUM)]

    def most(self, number: int) -> int:
        """The largest that a process has."""
        return round(*self._reduced([number], distributed.ReduceOp.MAX))

    def _reduced(self, numbers: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(found, operation)
        return found.tolist()

    def gather(self, thing: Any) -> list[Any]:
        """What each process has, in their order; small things that pickle writes."""
        if self.size == 1:
            return [thing]
        found = [None] * self.size
        distributed.all_gather_object(found, thing)
        return found

    def firsts(self, thing: Any) -> Any:
        """What the first process has."""
        return self.gather(thing)[0]

    def share(self, batch_size: int) -> int:
        """The rows of a batch for each process. Raises ValueError if they are not equally many."""
        if batch_size % self.size:
            raise ValueError(f"train.batch_size={batch_size} cannot be shared by {self.size} processes: use a multiple")
        return batch_size // self.size

    def averaging(self, objective: nn.Module) -> nn.Module:
        """The objective, whose gradients are the means over all processes; alone it stays as it is."""
        if self.size == 1:
            return objective
        with warnings.catch_warnings():  # of another name that this flag has from torch 2.13 on
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)

    def averaged(self, objective: nn.Module, when: bool) -> contextlib.AbstractContextManager:
        """In the block gradients are averaged only `when` that is wanted, for it takes as long as sending them."""
        return contextlib.nullcontext() if self.size == 1 or when else objective.no_sync()

    def seed(self, seed: int, step: int) -> None:
        """With several processes, draw what a layer drops by the seed, the step and the process."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0]))


ALONE = Group()


def size_of_group() -> int:
    """The number of processes that torchrun has started for this run."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first_process() -> bool:
    """Whether this is the process that prints, before it has joined the others."""
    return size_of_group() == 1 or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the other processes that torchrun has started, until the end of the block.

    Raises PeerLost if one of them ends.
    """
    if size_of_group() == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size(), device)
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or GLOO in str(error):
            raise PeerLost("another process of the run has ended") from error
        raise
    finally:
        distributed.destroy_process_group()


def stepping(group: Group) -> contextlib.AbstractContextManager[None]:
    """A block of training steps, in which counts are those of all processes."""
    return counted_together() if group.size > 1 else contextlib.nullcontext()
