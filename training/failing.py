"""Which of several processes tells an error: if all make it the first, if one alone makes it that one."""

import contextlib
import time
from collections.abc import Iterator

from torch import distributed

from configuration.command_line import complain

GLOO = "gloo"  # what it raises when another process has died has its name, and no class of its own
TOLD = "told"  # key of the store: the first process has an error of its own
SOON, POLL_SECONDS = 5.0, 0.02  # that the first may take longer to make the same mistake; between looks for it


class PeerLost(Exception):
    """Another process of the group has ended."""


class Agreed(Exception):
    """Raised in all processes of the group, of which the first tells it."""


def is_of_peer(error: BaseException) -> bool:
    """Whether an error is what another process leaves that ends."""
    return isinstance(error, PeerLost | distributed.DistError) or isinstance(error, RuntimeError) and GLOO in str(error)


@contextlib.contextmanager
def telling(store: distributed.Store, rank: int, size: int) -> Iterator[None]:
    """A block whose error is printed here, in a sentence with the rank, unless the first process has one to tell.

    The others wait for that some seconds.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, Agreed) or is_of_peer(error):
            raise
        with contextlib.suppress(RuntimeError):  # torchrun, which keeps the store, has ended
            if rank == 0:
                store.set(TOLD, "")
            elif not appears(store, TOLD):
                said = str(error).partition("\n")[0] or type(error).__name__
                complain(f"error: rank {rank} of {size} processes: {said}", first=False)
        raise


def appears(store: distributed.Store, key: str) -> bool:
    """Whether a key is in the store, or comes soon."""
    end = time.monotonic() + SOON
    while not (found := store.check([key])) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return found
