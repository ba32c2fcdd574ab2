"""The memory of one process: what it holds, its peak, its allocator and its limit.

Read from /proc, so only on Linux; on other systems there are no numbers (None) and no limits.
"""

import ctypes
import errno
import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from configuration.heap import return_freed

Allocator = Literal["fast", "tight"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # mallopt(3)
ALLOCATORS = {
    "fast": {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**20},  # a pad counts as data, used or not
    "tight": {M_MMAP_MAX: 2**16, M_TRIM_THRESHOLD: 2**17, M_TOP_PAD: 2**17, M_MMAP_THRESHOLD: 2**17},
}
OUT_OF_MEMORY = re.compile(  # torch on a CPU, oneDNN, the C++ library, CUDA, cuBLAS, MPS, a new thread's stack
    r"can't allocate memory|could not create a primitive|could not create a memory|bad_alloc|out of memory"
    r"|ALLOC_FAILED|can't start new thread", re.IGNORECASE)


def rss_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process, by default this one; None if it is unknown or the process is gone."""
    return _status("VmRSS", pid)


def peak_rss_bytes(pid: int | None = None) -> int | None:
    """Peak of the resident memory since the process began or since `reset_peak_rss`; None as above.

    From the kernel's own counter; getrusage's starts at what the parent held.
    """
    return _status("VmHWM", pid)


def data_bytes(pid: int | None = None) -> int | None:
    """The private writable memory that a process has requested, touched or not: what RLIMIT_DATA counts."""
    return _status("VmData", pid)


def file_bytes(pid: int | None = None) -> int | None:
    """Resident pages of files of a process, mostly code. A limit on data does not count them."""
    return _status("RssFile", pid)


def reset_peak_rss() -> bool:
    """Reset this process's peak to what it holds now; False if the kernel cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str, pid: int | None) -> int | None:
    """A line of /proc/PID/status, in bytes."""
    try:
        text = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0  # a zombie has no such lines


def choose_allocator(kind: Allocator) -> bool:
    """Set how glibc gets memory; False, without effect, if the C library is another.

    fast: keep freed memory for the next tensor. A training step frees and takes the same large blocks; by default each
    goes back to the system and is zeroed again. With fast a step of the default model takes two thirds of the time.
    tight: map each block of 128 kB or more by itself and return it when it is freed, so that the process holds what its
    tensors take. Steps take twice the time of fast. By default glibc moves that threshold.
    """
    if not return_freed():
        return False
    return all([ctypes.CDLL(None).mallopt(option, value) for option, value in ALLOCATORS[kind].items()])


def limit_growth(num_bytes: int) -> Callable[[], None]:
    """From here on, let this process request at most `num_bytes` more: then allocating raises an error.

    Call it when everything is imported and warmed up: a library that gets no memory while it starts ends the process,
    and oneDNN's bfloat16 kernels sometimes do so later (SIGSEGV, with a peak near the limit). Counts requested memory,
    touched or not: 8 MB for a thread's stack. Returns a function that removes the limit.
    Raises ValueError if the system has no such limit.
    """
    before = data_bytes()
    if before is None:
        raise ValueError(f"a limit of {num_bytes:,} bytes cannot be set: only Linux limits the memory of a process")
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    set_before = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    limit = min([before - _unused_heap_bytes() + num_bytes, *set_before])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return functools.partial(resource.setrlimit, resource.RLIMIT_DATA, (soft, hard))


class HeapInfo(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def _unused_heap_bytes() -> int:
    """What glibc holds and could hand out without a request to the system; 0 if it cannot tell."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):  # another C library, or glibc before 2.33
        return 0
    libc.malloc_trim(0)  # its pages go back, but it still counts as data
    libc.mallinfo2.restype = HeapInfo
    return libc.mallinfo2().fordblks


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or its cause, says that memory ran out, on a CPU or a GPU."""
    says_so = (isinstance(error, MemoryError | torch.OutOfMemoryError)
               or isinstance(error, OSError) and error.errno == errno.ENOMEM
               or isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)))
    return bool(says_so) or error.__cause__ is not None and is_out_of_memory(error.__cause__)


class Watchdog:
    """Calls `on_exceed(rss)` once, from a thread of its own, when a process holds more than `limit_bytes`.

    It checks every 20 ms, so the process may exceed the limit by about 60 MB. `peak_bytes` is the process's peak at
    the last check, also after its end. Used as `with Watchdog(...)`. Raises ValueError if the system is not Linux.
    """

    def __init__(self, pid: int | None, limit_bytes: int, on_exceed: Callable[[int], object], *, every: float = 0.02):
        if rss_bytes() is None:
            raise ValueError("a watchdog needs Linux, where the memory of a process can be read")
        self.pid, self.limit_bytes, self.on_exceed, self.every = pid, limit_bytes, on_exceed, every
        self.peak_bytes = 0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._left.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        while not self._left.wait(self.every):
            rss = rss_bytes(self.pid)
            if rss is None:
                return
            self.peak_bytes = max(self.peak_bytes, peak_rss_bytes(self.pid) or 0)
            if rss > self.limit_bytes:
                self.on_exceed(rss)
                return
