"""The text of --help: the flags of a dataclass by groups, with their values, their meanings and their defaults.

A flag's meaning is the comment on its line, so this reads the source, each file once. tyro, which writes the help of
smaller commands, reads it once for each group: a second for the flags of Config.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configuration.command_line import spell_value
from configuration.flag_parser import Flag, flags_of
from configuration.tree import get

WIDEST = 120  # characters of a line, at most


def help_text(default: Any, program: str, description: str) -> str:
    """The help of a program whose flags change a dataclass, in lines that fit the terminal."""
    width, flags, meanings = min(get_terminal_size().columns, WIDEST), flags_of(type(default)), _meanings(type(default))
    word = f" [{_word(flags[''])} ...]" if "" in flags else ""
    lines = [f"usage: {program}{word} [-h] [--flag value ...]", ""]
    for line in _joined(description.strip().split("\n")):
        lines += _wrapped(line.strip(), width, " " * (len(line) - len(line.lstrip())))
    groups: dict[str, list[Flag]] = {"": []}  # the program's own flags come first
    for flag in flags.values():
        groups.setdefault(flag.path.rpartition(".")[0], []).append(flag)
    for path, group in groups.items():
        lines += ["", *_wrapped(_heading(group[0], meanings.get(path, "")), width)] if group else []
        for flag in group:
            meaning = f"{meanings[flag.path]} (default: {spell_value(get(default, flag.path))})".strip()
            lines += [*_wrapped(_usage(flag), width, "  "), *_wrapped(meaning, width, "      ")]
    return "\n".join(lines)


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a text with each paragraph on one; empty, indented and flags' lines stay as they are."""
    paragraph: list[str] = []
    for line in lines:
        if line and not line.startswith((" ", "--")):
            paragraph.append(line)
            continue
        if paragraph:
            yield " ".join(paragraph)
        yield line
        paragraph = []
    if paragraph:
        yield " ".join(paragraph)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                break_on_hyphens=False) or [""]


def _heading(flag: Flag, meaning: str) -> str:
    """The line above the flags of a group: its name as it is typed, or as it is called if its flags do without it."""
    name = flag.name.rpartition(".")[0] or flag.path.rpartition(".")[0]
    return f"{name or 'flags'}{': ' * bool(meaning)}{meaning}"


def _word(flag: Flag) -> str:
    """How a word without a flag is called."""
    return flag.metavar or flag.name.upper()


def _usage(flag: Flag) -> str:
    """A flag as it is typed, and the values that it takes."""
    above, dot, name = f"--{flag.name.replace('_', '-')}".rpartition(".")
    match flag.takes:
        case "switch":
            return f"{above}{dot}{name}, {above}{dot}{'' if dot else '--'}no-{name.removeprefix('--')}"
        case "tree":
            return f"{above}{dot}{name}.NAME.FLAG VALUE"
        case "several":
            return f"{_word(flag)} ..." if flag.positional else f"{above}{dot}{name} [{_values(flag.hint)} ...]"
        case _:
            return f"{above}{dot}{name} {_values(flag.hint)}"


def _values(hint: Any) -> str:
    """The values of a type: INT, {none, head, channel}, None | FLOAT."""
    if get_origin(hint) is Literal:
        return f"{{{', '.join(map(str, get_args(hint)))}}}"
    if parts := [part for part in get_args(hint) if part is not Ellipsis]:
        alone = sorted(parts, key=lambda part: part is not NoneType)
        return " ".join(map(_values, parts)) if get_origin(hint) is tuple else " | ".join(map(_values, alone))
    return "None" if hint is NoneType else getattr(hint, "__name__", str(hint)).upper()


def _meanings(kind: type, path: str = "") -> dict[str, str]:
    """What the source says of each flag and each group of a dataclass, by dotted paths; a group's class may say it."""
    found, comments, own = {}, {}, {field.name for field in fields(kind)}
    for base in reversed(kind.__mro__):
        comments |= _comments(base.__module__).get(base.__name__, {})
    for name, hint in get_type_hints(kind).items():
        if name not in own:
            continue
        found[path + name] = comments.get(name, "")
        if is_dataclass(hint):
            found[path + name] = found[path + name] or " ".join((hint.__doc__ or "").partition("\n\n")[0].split())
            found |= _meanings(hint, f"{path}{name}.")
    return found


@cache
def _comments(module: str) -> dict[str, dict[str, str]]:
    """The comments on the lines of fields in a module's file, by class and field."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is None or not file.endswith(".py"):
        return {}
    source = Path(file).read_text(encoding="utf-8")
    lines = source.split("\n")
    return {node.name: dict(_of_fields(node, lines)) for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef)}


def _of_fields(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str]]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            rest = lines[field.end_lineno - 1].encode()[field.end_col_offset:].decode()
            yield field.target.id, rest.partition("#")[2].strip()
