"""A worker: a program that answers requests, one JSON line each. The caller never blocks on it."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import runs
from configuration.heap import with_joined


class Worker:
    """A module, run as a program. It starts with the first request, and again after it died.

    It ends when its stdin ends, so it never outlives the caller. Ctrl-C does not reach it.
    """

    def __init__(self, program: str, *words: str, threads: int, log: Path):
        self._command = [sys.executable, "-m", program, *words]
        self._environment = with_joined() | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1",
                                             "SHAPESHIFTER_MODELS": str(runs.MODELS),
                                             "PYTHONPATH": os.pathsep.join([str(runs.ROOT), *sys.path])}
        self.log, self._process, self._rest = log, None, b""

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; `answers` gives the answer."""
        if self._process is None:
            self._start()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=errors, env=self._environment, start_new_session=True)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""

    def answers(self) -> list[dict[str, Any]]:
        """The answers since the last call; {"died": exit status} is the last one if the program ended by itself."""
        if self._process is None:
            return []
        ended = self._process.poll()
        *lines, self._rest = (self._rest + (self._process.stdout.read() or b"")).split(b"\n")
        found = [json.loads(line) for line in lines]
        if ended is not None:
            self.close()
            found.append({"died": ended})
        return found

    def fileno(self) -> int:
        return self._process.stdout.fileno()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def close(self) -> None:
        """End the program and its children now."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # it died with a request unread
                stream.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_answers(workers: Iterable[Worker], seconds: float) -> None:
    """Return when a worker has an answer, after `seconds` at the latest."""
    select.select([worker for worker in workers if worker.is_running], [], [], seconds)
