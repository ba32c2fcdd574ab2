"""Configurations in files: saved as JSON, read from JSON or YAML."""

import json
from pathlib import Path
from typing import Any, TypeVar

from configuration.migrations import FORMAT, migrated
from configuration.tree import build, to_dict
from configuration.yaml_1_2 import read_yaml

T = TypeVar("T")


def to_json(cfg: Any) -> str:
    """The text of config.json, with the number of its format."""
    return json.dumps({"format": FORMAT} | to_dict(cfg), indent=2) + "\n"


def save_config(cfg: Any, path: Path) -> None:
    path.write_text(to_json(cfg), encoding="utf-8")


def load(kind: type[T], path: Path) -> T:
    """Read a configuration from JSON or YAML. Raises ValueError with the file and the mistake.

    A file without `format` has the newest format, or format 1 if its flags are those of format 1.
    """
    tree = read_yaml(Path(path))  # JSON is YAML too
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no configuration: expected sections such as model and train")
    try:
        return build(kind, migrated(tree))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
