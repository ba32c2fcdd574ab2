"""Results that take time, kept in JSON files, which may be deleted at any time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configuration.command_line import warn
from configuration.reading import read_json
from run_store.atomic_files import write_text


def cached(path: Path, key: str, make: Callable[[], Any]) -> Any:
    """The result under a key in a file; made and added if it is missing or the file is damaged."""
    try:
        known = read_json(path)
    except ValueError:
        known = {}
    if not isinstance(known, dict):
        known = {}
    if key not in known:
        known[key] = make()
        try:
            write_text(path, json.dumps(known) + "\n")
        except OSError as error:  # another user's run, perhaps
            warn(f"{error.filename} cannot be written ({error.strerror}): the next time takes as long")
    return known[key]
