"""How glibc keeps freed memory in a process that trains: in whole blocks. The environment says so before it begins.

A tensor is cut from a larger block, so that it begins at a multiple of 64 bytes, and the pieces on its sides are freed.
By default they wait in a list for small requests (tcache, fastbins), and a small object soon lives there. Then the
freed block is some bytes too small for the next tensor of the same size, which takes a new one; some runs held three
to five times their tensors. Without these lists the pieces are joined again when the tensor is freed.
"""

import os
import sys
from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
SETTINGS = {"glibc.malloc.tcache_count": "0", "glibc.malloc.mxfast": "0"}


def joins_freed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether freed memory is joined in a process with this environment."""
    return SETTINGS.items() <= _tunables(environment).items()


def with_joined(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process in which freed memory is joined; settings that it has already are kept."""
    tunables = SETTINGS | _tunables(environment)
    return dict(environment) | {VARIABLE: ":".join(f"{name}={value}" for name, value in tunables.items())}


def _tunables(environment: Mapping[str, str]) -> dict[str, str]:
    given = (setting.partition("=") for setting in environment.get(VARIABLE, "").split(":"))
    return {name: value for name, _, value in given if name}


def restart() -> None:
    """Start this program again in the same process, so that freed memory is joined; returns if it is, or cannot be.

    For a program's first lines: what it has read from stdin is gone.
    """
    environment = with_joined()
    if _tunables(environment) == _tunables(os.environ) or not _has_glibc() or not sys.executable:
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _has_glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def return_freed() -> bool:
    """Return what was freed to the system; False, without effect, if the C library is not glibc."""
    import ctypes  # not at a program's start

    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "malloc_trim"):
        return False
    libc.malloc_trim(0)
    return True
