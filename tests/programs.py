"""Programs that start at once: a fork of the tests' process, which has imported what they need."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

FOLDERS = {"MODELS": "SHAPESHIFTER_MODELS", "RESULTS": "SHAPESHIFTER_RESULTS"}  # constants, and where they come from


class Program:
    """A function in a process of its own, with an environment, a standard output and a standard error; like a Popen.

    Its fork server is a fork too, or with `fresh` a fresh interpreter as it is for users.
    """

    def __init__(self, function: Callable[[], object], environment: dict[str, str], *, fresh: bool = False):
        pipes = [os.pipe(), os.pipe()]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                for number, (_, write) in enumerate(pipes, 1):
                    os.dup2(write, number)
                if not fresh:
                    subprocess.Popen = started
                status = run(function, environment)
            finally:
                os._exit(status)
        self._said = ["", ""]
        for _, write in pipes:
            os.close(write)
        self._readers = [threading.Thread(target=self._read, args=(number, read), daemon=True)
                         for number, (read, _) in enumerate(pipes)]
        for reader in self._readers:
            reader.start()

    def _read(self, number: int, pipe: int) -> None:
        with open(pipe, encoding="utf-8") as stream:
            self._said[number] = stream.read()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written, when it has ended."""
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("a program", timeout)
        self.wait()
        return self._said[0], self._said[1]

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        return self._reap(0)

    def _reap(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A fork server as a fork of this process: all that its children need is imported. What is used of a Popen."""

    def __init__(self, words: Sequence[str], *, stderr: IO[bytes], env: dict[str, str], **_):
        (asked, ask), (answer, said) = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                os.close(ask)
                for source, target in ((asked, 0), (said, 1), (stderr.fileno(), 2)):
                    os.dup2(source, target)
                serve(words, env)
            finally:
                os._exit(0)
        os.close(asked)
        os.close(said)
        self.stdin, self.stdout = os.fdopen(ask, "wb"), os.fdopen(answer, "rb")

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 100.0) -> int:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a fork server", timeout)
            time.sleep(0.01)
        return self.returncode


def serve(words: Sequence[str], env: dict[str, str]) -> None:
    """Be the fork server of a program."""
    from experiments.processes import fork_server

    as_fresh(env)
    sys.modules["torch"].set_num_threads(int(env["OMP_NUM_THREADS"]))
    sys.argv = ["fork_server", *words]
    fork_server.main()


_popen = subprocess.Popen


def started(command: Sequence[str], **options):
    """Popen, but of a fork server, which is forked."""
    if command[1:3] == ["-m", "experiments.processes.fork_server"]:
        return ForkServer(command[3:], **options)
    return _popen(command, **options)


def run(function: Callable[[], object], environment: dict[str, str]) -> int:
    """Call a function as a fresh interpreter would; its exit status."""
    as_fresh(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        function()
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def as_fresh(environment: dict[str, str]) -> None:
    """Environment, folders, signals and standard streams as those of a fresh interpreter."""
    os.environ.update(environment)
    for module in list(sys.modules.values()):
        for constant, variable in FOLDERS.items():
            if variable in environment and isinstance(vars(module).get(constant), Path):
                setattr(module, constant, Path(environment[variable]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, buffering=1, encoding="utf-8", closefd=False)
                                         for number, mode in enumerate("rww"))
