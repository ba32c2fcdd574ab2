"""Replies and texts that outlive the process: lines of JSON in a file that only grows."""

import json
import threading
from pathlib import Path
from typing import Any

from run_store.append_log import append_whole


class ReplyCache(dict):
    """A mapping in a file, shared by threads. A half-written line is skipped and does not harm the next one."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                self.update([json.loads(line)])
            except (TypeError, ValueError):  # half a line, or not of this file
                continue
        if text and not text.endswith("\n"):
            append_whole(path, b"\n")  # so that the next line does not join the half one

    def __setitem__(self, key: str, value: Any) -> None:
        with self._lock:
            super().__setitem__(key, value)
            append_whole(self._path, (json.dumps([key, value]) + "\n").encode())
