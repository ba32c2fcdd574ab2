"""Questions to a forked child and its answers, by named pipes: its own streams lead to its log."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


class NamedPipes:
    """JSON lines to a process and back, by two named pipes in a temporary folder.

    This side holds both pipes open for both ways, so that it never waits for the other to open them. So it does not see
    that the process has ended: the fork server says so.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="shapeshifter-", ignore_cleanup_errors=True)
        self.names = [str(Path(self._folder.name, name)) for name in ("questions", "answers")]
        for name in self.names:
            os.mkfifo(name, 0o600)
        self._questions, self._answers = (os.open(name, os.O_RDWR | os.O_CLOEXEC) for name in self.names)
        os.set_blocking(self._answers, False)
        self._rest = b""

    def write(self, line: dict[str, Any]) -> None:
        with open(self._questions, "wb", closefd=False) as stream:
            stream.write(json.dumps(line).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """The lines since the last call."""
        with open(self._answers, "rb", buffering=0, closefd=False) as stream:
            *lines, self._rest = (self._rest + (stream.readall() or b"")).split(b"\n")
        if lines:
            self._folder.cleanup()  # the other end has opened both
        return [json.loads(line) for line in lines]

    def fileno(self) -> int:
        return self._answers

    def close(self) -> None:
        self._folder.cleanup()
        os.close(self._questions)
        os.close(self._answers)
