"""A fork server: it has imported what its children need, so they start at once.

    python -m experiments.processes.fork_server MODULE ...    JSON lines: requests on stdin, answers on stdout
    {"id": 3, "call": "train:main", "argv": [...], "log": FILE, "environment": {...}}
                                     forks a child  ->  {"id": 3, "pid": 1234}
    when the child has ended                        ->  {"id": 3, "status": 0, "peak_bytes": 612345678}

Why not multiprocessing's: that one does not tell how much memory a killed child had used. The kernel counts a forked
child's memory from the fork on, and wait4 gives its peak. When stdin ends the server ends, and PR_SET_PDEATHSIG ends
its children.
"""

import atexit
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

from training.stopping import follow_parent


def main() -> None:
    gc.disable()  # importing takes a quarter less time
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy every page
    gc.enable()
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
                fork(json.loads(line), children)


def fork(request: dict[str, Any], children: dict[int, int]) -> None:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        be_child(request)
    children[pid] = request["id"]
    answer({"id": request["id"], "pid": pid})


def answer(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def reap(children: dict[int, int]) -> None:
    """Report the children that have ended."""
    while children:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        answer({"id": children.pop(pid), "status": os.waitstatus_to_exitcode(status),
                "peak_bytes": usage.ru_maxrss * 1024})


def be_child(request: dict[str, Any]) -> None:
    """Call the function of a request, then exit with its status."""
    die_with_server()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    module, _, name = request["call"].partition(":")
    sys.argv = [module, *request["argv"]]
    os.environ.update(request["environment"])
    status = 1
    try:
        getattr(importlib.import_module(module), name)()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:  # finalizing the interpreter would copy its pages, which takes longer than the start
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def die_with_server() -> None:
    """Die when the server dies; if the system runs out of memory, die before other programs."""
    parent = os.getppid()
    follow_parent(signal.SIGKILL)
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(1)  # the server died first


if __name__ == "__main__":
    main()
