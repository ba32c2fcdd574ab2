"""The memory of one process: what it holds, the most it held, and a limit that it cannot pass.

Measured from /proc, so on Linux; elsewhere there are no numbers (None) and no limits.
"""

import contextlib
import ctypes
import errno
import functools
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
    """Resident memory of a process, by default this one; None where it cannot be told or the process is gone."""
    return _status("VmRSS", pid)


def peak_rss_bytes(pid: int | None = None) -> int | None:
    """The most it was resident at a time, since it began or since `reset_peak_rss`; None as above.

    The kernel's own mark; the one of getrusage starts at what the parent held.
    """
    return _status("VmHWM", pid)


def data_bytes(pid: int | None = None) -> int | None:
    """The private writable memory that a process has asked for, touched or not: what RLIMIT_DATA counts."""
    return _status("VmData", pid)


def file_bytes() -> int | None:
    """What of this process is resident as pages of files: code, above all. No limit on data counts it."""
    return _status("RssFile", None)


def reset_peak_rss() -> bool:
    """Let this process's peak begin anew at what it holds now; false where the kernel cannot."""
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
    return int(found[1]) * 1024 if found else 0  # a process that has ended, and is not yet waited for, has no lines


def free_bytes(root: Path = Path("/")) -> int | None:
    """What this process can still get: from the machine, or from its control groups where they allow less.

    Pages of files count as free where the kernel may drop them. `root` is the folder with proc and sys.
    """
    try:
        meminfo = (root / "proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    available = int(re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)[1]) * 1024
    return max(0, min([available, *_left_in_groups(root)]))


GROUP_FILES = {  # version of the control groups -> where they are, limit, usage, pages of files that may be dropped
    1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
}


def _left_in_groups(root: Path) -> Iterator[int]:
    """Limit less usage of each group that this process is in, from its own up to the top, where there is a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        where, limit_file, usage_file, droppable = GROUP_FILES[1 if controllers else 2]
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container those above its own are not to be seen
            folder = root / where / group
            with contextlib.suppress(OSError):
                limit = (folder / limit_file).read_text().strip()
                usage = int((folder / usage_file).read_text())
                found = re.search(rf"^{droppable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
                if limit != "max":
                    yield int(limit) - usage + (int(found[1]) if found else 0)


def choose_allocator(kind: Allocator) -> bool:
    """Tell glibc how to get memory; false, and nothing happens, where the C library is another.

    fast: freed memory is kept for the next tensor. A training step frees and takes the same large blocks, and by
    default each goes back to the system and comes back as empty pages; kept, a step of the default model takes two
    thirds of the time. tight: each block of 128 kB or more is mapped for itself and goes back when freed, so the
    process holds what its tensors take; steps take twice the time of fast. By default that threshold moves.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        return False
    libc.malloc_trim(0)  # what was freed before goes back
    return all([libc.mallopt(option, value) for option, value in ALLOCATORS[kind].items()])


def warm_up() -> None:
    """Have all that exist which training makes once: thread pools, code of kernels, what torch.optim imports.

    Takes a step of something like a layer in float32 and bfloat16. Draws no random number.
    """
    table, weight, scale = (nn.Parameter(torch.zeros(shape)) for shape in ((512, 256), (256, 256), (256,)))
    tokens = torch.zeros(4, 256, dtype=torch.int64)  # large enough for all threads to take part
    optimizers = torch.optim.Muon([weight]), torch.optim.AdamW([table, scale], fused=True)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            checkpoint(_like_a_layer, tokens, table, weight, scale, use_reentrant=False).backward()
    nn.utils.clip_grad_norm_([table, weight, scale], 1.0)
    for optimizer in optimizers:
        optimizer.step()


def _like_a_layer(tokens: Tensor, table: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """A loss on the way to which most kernels of a model are called."""
    x = nn.functional.embedding(tokens, table)  # (b, t, d)
    y = nn.functional.linear(x * (x.square().mean(-1, keepdim=True) + 1).rsqrt() * scale, weight)
    y = y + nn.functional.scaled_dot_product_attention(y, y, y, is_causal=True)
    y = nn.functional.gelu(y) * y.sigmoid() + nn.functional.layer_norm(y, y.shape[-1:])
    scores = (y @ y.mT).float().tril().softmax(-1)  # (b, t, t)
    logits = nn.functional.linear(y, table).float()  # (b, t, v)
    copied = logits.scatter_add(-1, tokens[:, None].expand_as(scores), scores)
    return nn.functional.cross_entropy(copied.flatten(0, 1), tokens.flatten()) + copied.logsumexp(-1).mean()


def baseline_bytes() -> int | None:
    """Resident memory of this process once it is warmed up; to be asked when everything is imported."""
    warm_up()
    return rss_bytes()


@functools.cache
def child_baseline_bytes(module: str = "train") -> int | None:
    """`baseline_bytes` of a fresh process that has imported a module; measured once. Some seconds."""
    code = (f"import {module}; from memory_prediction.process import *; "
            "choose_allocator('tight'); print(baseline_bytes())")
    answer = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parent.parent,
                            capture_output=True, text=True, check=True).stdout
    return None if answer.strip() == "None" else int(answer)


def limit_growth(num_bytes: int) -> Callable[[], None]:
    """From here on, refuse this process more than so many bytes besides what it has: allocating raises an error.

    To be called when everything is imported and warmed up: libraries that are refused memory as they start end the
    process instead, and oneDNN's bfloat16 kernels now and then do so later (SIGSEGV, with a peak near the limit).
    Counts what is asked for, touched or not: a thread's stack 8 MB. Returns a function that takes the limit back.
    Raises ValueError where there is no such limit.
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
    """What glibc has of the system, and could hand out without asking it again; 0 where it cannot tell."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):  # another C library, or glibc before 2.33
        return 0
    libc.malloc_trim(0)  # its pages go back, but it still counts as data
    libc.mallinfo2.restype = HeapInfo
    return libc.mallinfo2().fordblks


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one it came from, says that memory ran out: on a CPU or on a GPU."""
    said = (isinstance(error, MemoryError | torch.OutOfMemoryError)
            or isinstance(error, OSError) and error.errno == errno.ENOMEM
            or isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)))
    return bool(said) or error.__cause__ is not None and is_out_of_memory(error.__cause__)


class Watchdog:
    """Calls `on_exceed(rss)` once, from a thread of its own, when a process holds more than `limit_bytes`.

    It looks every 20 ms, so up to some 60 MB more may have been taken. `peak_bytes` is the process's peak as last
    seen, also after its end. Used as `with Watchdog(...)`. Raises ValueError where no process's memory can be read.
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
