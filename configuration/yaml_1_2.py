"""Read YAML as its version 1.2 does: `yes` is a word, `1:30` too, 010 is ten; and never without end."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from configuration.reading import read_text

MAX_VALUES = 100_000  # of a file, when its aliases are written out
MAX_BYTES = 2**20
TAG = "tag:yaml.org,2002:"
SCALARS = {  # YAML 1.2.2, section 10.3.2: the core schema
    "null": (r"~|null|Null|NULL|", "~nN", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789",
            lambda text: int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
              "-+0123456789.", lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))),
}


class Loader(yaml.SafeLoader):
    """PyYAML's, with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict = {}

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        found = super().construct_mapping(node, deep)
        for key in found:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a word")
        return found


for _name, (_pattern, _first, _convert) in SCALARS.items():
    Loader.add_implicit_resolver(TAG + _name, re.compile(f"^(?:{_pattern})$"), [*_first, *([""] * (_name == "null"))])
    Loader.add_constructor(TAG + _name, lambda self, node, convert=_convert: convert(self.construct_scalar(node)))


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values of a node with its aliases written out. Raises RecursionError if it holds itself."""
    if id(node) not in known:
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def read_yaml(path: Path) -> Any:
    """The value in a YAML or JSON file. Raises ValueError with the file and the mistake."""
    try:
        text = read_text(path, MAX_BYTES)
    except ValueError as error:
        raise ValueError(str(error).replace(path.name, str(path), 1)) from None
    if text.startswith("{"):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):  # twenty times as fast
            return json.loads(text)
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """The value of a YAML or JSON text; `path` is for the sentence. Raises ValueError."""
    try:
        return yaml.load(text, Loader)  # noqa: S506, it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{path} is neither JSON nor YAML: {error.problem}{where}") from None
    except RecursionError:
        raise ValueError(f"{path} cannot be read: it is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
