"""The process that trials are born of: it has imported what they need, so that they start in no time.

    python -m searching.starter MODULE ...    requests on standard input, answers on standard output, a JSON line each
    {"id": 3, "call": "train:main", "argv": [...], "log": FILE}    begins a process  ->  {"id": 3, "pid": 1234}
    when that ends                                                 ->  {"id": 3, "status": 0, "peak_bytes": 612345678}

A child of a fork counts its own memory from the fork on, so the kernel's mark in wait4 is that child's, even where it
was killed. When standard input ends, so do all: the children by PR_SET_PDEATHSIG.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy every page
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}  # process -> request
    rest = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            reap(children)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    be_child(request)
                children[pid] = request["id"]
                answer({"id": request["id"], "pid": pid})


def answer(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def reap(children: dict[int, int]) -> None:
    """Tell of the children that have ended."""
    while children:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        answer({"id": children.pop(pid), "status": os.waitstatus_to_exitcode(status),
                "peak_bytes": usage.ru_maxrss * 1024})


def be_child(request: dict[str, Any]) -> None:
    """Do what the request says, in place of this program."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")  # if the system runs out, trials go first
    if os.getppid() != parent:
        os._exit(1)  # it died before this one asked to follow
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    module, _, name = request["call"].partition(":")
    sys.argv = [module, *request["argv"]]
    status = 1
    try:
        getattr(importlib.import_module(module), name)()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:  # taking the interpreter apart, page by page copied from the parent, would take longer than to begin
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
