"""What was found out about a run, kept in its folder: it costs time to have again, and may be deleted at any time."""

import json
from typing import Any

from configuration.command_line import warn
from run_store.atomic_files import write_text
from runs import Run


def read_cache(run: Run, name: str) -> dict[str, Any]:
    """What a file of the run's folder holds; nothing where it is not there, or damaged."""
    try:
        return json.loads((run.path / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def write_cache(run: Run, name: str, cached: dict[str, Any], otherwise: str) -> None:
    """Write it; where that cannot be, say on stderr what happens `otherwise`."""
    try:
        write_text(run.path / name, json.dumps(cached) + "\n")
    except OSError as error:  # somebody else's run, perhaps
        warn(f"{error.filename} cannot be written ({error.strerror}): {otherwise}")
