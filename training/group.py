"""The processes that train one run together, started by `torchrun --nproc-per-node N train.py ...`.

Each has the whole model and an equal part of the rows of each batch. Gradients are averaged by torch's
DistributedDataParallel; whatever decides how training goes on is decided on numbers of all processes, so that none
waits for another that has left. The first process alone prints, writes, samples and grades.
"""

import contextlib
import os
import socket
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from modules.across import counted_together
from training.failing import PeerLost, is_of_peer, telling

PATIENCE = timedelta(days=1)  # the others wait while the first grades; a process that has died is noticed at once
CONNECTING = timedelta(seconds=30)  # to the store of torchrun, which may have been killed
POLL_SECONDS = 0.02  # between looks for the others, when they meet


@dataclass(frozen=True)
class Group:
    """The processes of a run, of which this is number `rank`. Alone, every method gives back what it is given."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # on which numbers are exchanged

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def on_this_machine(self) -> int:
        """How many of the processes are on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if self.size > 1 else 1

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

    def averaging(self, objective: nn.Module) -> nn.Module:
        """The objective, whose gradients are the means over all processes; alone it stays as it is."""
        if self.size == 1:
            return objective
        with warnings.catch_warnings():  # of another name that this flag has from torch 2.13 on
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)

    @contextlib.contextmanager
    def averaged(self, objective: nn.Module, when: bool) -> Iterator[None]:
        """In the block gradients are averaged only `when` that is wanted, for it takes as long as sending them."""
        if self.size > 1 and not isinstance(objective, DistributedDataParallel):  # it is sharded
            objective.set_requires_gradient_sync(when)
        elif self.size > 1 and not when:
            with objective.no_sync():
                yield
            return
        yield

    def own_batches(self, batches: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
        """The batches of this process, which takes its turn; False = it is another's and does not count.

        So all take equally many, for with sharded weights each waits for the others in a forward pass.
        """
        coming = iter(batches)
        while turn := list(islice(coming, self.size)):
            yield turn[min(self.rank, len(turn) - 1)], self.rank < len(turn)

    def seed(self, seed: int, step: int) -> None:
        """With several processes, draw what a layer drops by the seed, the step and the process."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0]))


ALONE = Group()


def share(batch_size: int, processes: int) -> int:
    """The rows of a batch for each process. Raises ValueError if they are not equally many."""
    if batch_size % processes:
        raise ValueError(f"train.batch_size={batch_size} cannot be shared by {processes} processes: use a multiple")
    return batch_size // processes


def size_of_group() -> int:
    """The number of processes that torchrun has started for this run."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


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
    require_torchrun()
    try:
        store, rank, size = next(distributed.rendezvous("env://", timeout=CONNECTING))
        store = met_in(store, rank, size)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank,
                                       world_size=size, timeout=PATIENCE)
        with telling(store, rank, size):
            yield Group(rank, size, device)
    except RuntimeError as error:
        if is_of_peer(error):
            raise PeerLost("another process of the run has ended") from error
        raise
    distributed.destroy_process_group()


def require_torchrun() -> None:
    """Raise PeerLost if torchrun, which has started this process, was killed; connecting to it would take long."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            socket.create_connection(place, timeout=CONNECTING.total_seconds()).close()
        except OSError as error:
            raise PeerLost("torchrun has ended") from error


def met_in(store: distributed.Store, rank: int, size: int) -> distributed.Store:
    """A part of the store that is of these processes alone.

    torchrun keeps one store for all its restarts, in which the addresses of those that have died are left: a process
    that reads one waits for it in vain. So the first names the part, and tells each that has said its own new name.
    """
    own = uuid.uuid4().hex
    store.set(f"name {rank}", own)
    while rank == 0 and not store.check([f"{own} has {other}" for other in range(1, size)]):
        for name in (f"name {other}" for other in range(1, size)):
            if store.check([name]):
                store.set(f"part of {store.get(name).decode()}", own)
        time.sleep(POLL_SECONDS)
    while rank != 0 and not store.check([f"part of {own}"]):
        time.sleep(POLL_SECONDS)
    part = store.get(f"part of {own}").decode() if rank else own
    store.set(f"{part} has {rank}", "")
    return distributed.PrefixStore(part, store)


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
    """One of several processes that leaves the block by an error or SystemExit ends there, without cleaning up.

    The group of gloo (torch 2.13) may else wait forever for what was to be sent.
    """
    try:
        yield
    except BaseException as error:
        if size_of_group() == 1:
            raise
        status = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def stepping(group: Group) -> contextlib.AbstractContextManager[None]:
    """A block of training steps, in which counts are those of all processes."""
    return counted_together() if group.size > 1 else contextlib.nullcontext()
