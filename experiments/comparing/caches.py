"""Results about a run that take time, kept in its folder; the files may be deleted at any time."""

import json
from collections.abc import Callable
from typing import Any

from configuration.command_line import warn
from run_store.atomic_files import write_text
from runs import Run


def cached(run: Run, name: str, key: str, make: Callable[[], Any]) -> Any:
    """The result under a key in a file of the run's folder; made and added if it is missing or the file is damaged."""
    try:
        known = json.loads((run.path / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    if key not in known:
        known[key] = make()
        try:
            write_text(run.path / name, json.dumps(known) + "\n")
        except OSError as error:  # another user's run, perhaps
            warn(f"{error.filename} cannot be written ({error.strerror}): the next time takes as long")
    return known[key]
