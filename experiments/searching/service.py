"""A process beside the search that answers requests, one JSON line each; the search never waits for it."""

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
from memory_prediction.process import rss_bytes


class Service:
    """A module, run as a program, started when it is first asked at the latest, and again after it died.

    It ends when its standard input does, so it never outlives the search; Ctrl-C does not reach it.
    """

    def __init__(self, program: str, *words: str, threads: int = 1, log: Path | None = None):
        self._command = [sys.executable, "-m", program, *words]
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1",
                                          "SHAPESHIFTER_MODELS": str(runs.MODELS),
                                          "PYTHONPATH": os.pathsep.join([str(runs.ROOT), *sys.path])}
        self._log, self._process, self._rest = log, None, b""

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; its answer comes from `answers`."""
        self.start()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def start(self) -> None:
        """Begin, unless it has begun, so that it is ready when it is asked."""
        if self._process is not None:
            return
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with open(self._log or os.devnull, "ab") as errors:
            self._process = subprocess.Popen(self._command, **pipes, stderr=errors, env=self._environment,
                                             start_new_session=True)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""

    def answers(self) -> list[dict[str, Any]]:
        """What it has answered since; {"died": exit status} last where it has ended by itself."""
        if self._process is None:
            return []
        ended = self._process.poll()
        *lines, self._rest = (self._rest + self._read()).split(b"\n")
        found = [json.loads(line) for line in lines]
        if ended is not None:
            self.close()
            found.append({"died": ended})
        return found

    def _read(self) -> bytes:
        parts = []
        while part := self._process.stdout.read(1 << 16):
            parts.append(part)
        return b"".join(parts)

    def fileno(self) -> int:
        return self._process.stdout.fileno()

    def rss_bytes(self) -> int:
        """What it holds; 0 where it does not run, or cannot be told."""
        return (self._process and rss_bytes(self._process.pid)) or 0

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def close(self) -> None:
        """End it, and all it started, now."""
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


def wait_for_answers(services: Iterable[Service], seconds: float) -> None:
    """Return when one of them has something to say, at the latest after `seconds`."""
    select.select([service for service in services if service.is_running], [], [], seconds)
