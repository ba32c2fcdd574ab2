"""Read `--section.flag value ...` into changes of a dataclass."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from configuration.mistakes import nearest


@dataclass(frozen=True)
class Flag:
    """A flag as it is typed, and the path that it changes."""

    name: str  # as typed, with underscores: model.rope.theta
    path: str  # dotted, from the dataclass that is changed
    hint: Any  # its type, without annotations
    positional: bool
    metavar: str | None = None  # what a word without a flag is called in --help

    @property
    def takes(self) -> str:
        """switch: no value, or true or false; several: any number of values; tree: names go on below it; one."""
        origin = get_origin(self.hint)
        return "switch" if self.hint is bool else "several" if origin is tuple else "tree" if origin is dict else "one"

    @property
    def can_be_none(self) -> bool:
        return NoneType in get_args(self.hint)


@cache
def flags_of(kind: type) -> dict[str, Flag]:
    """Every flag of a dataclass by the name that is typed; "" is the flag that takes words without a flag."""
    found = list(_flags(kind, "", ""))
    return {"" if flag.positional else flag.name: flag for flag in found}


def _flags(kind: type, typed: str, path: str) -> Iterator[Flag]:
    own = {field.name for field in fields(kind)}  # without those of the class
    for field, hint in get_type_hints(kind, include_extras=True).items():
        if field not in own:
            continue
        bare, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        named = next((note.name for note in notes if getattr(note, "name", None) is not None), field)
        if is_dataclass(bare):  # a note on a group leaves out its name
            yield from _flags(bare, typed if notes else f"{typed}{named}.", f"{path}{field}.")
        else:
            yield Flag(typed + named, path + field, bare, any("Positional" in str(note) for note in notes),
                       next((note.metavar for note in notes if getattr(note, "metavar", None)), None))


def read_flags(words: Sequence[str], kind: type) -> dict[str, Any]:
    """The changes that words make: {"model.rope.theta": "5e5"}, for `override`, which checks the values.

    Switches take `--flag`, `--no-flag` and `--flag true|false`. If a flag is given twice, the last one counts.
    Raises ValueError with one sentence.
    """
    changes: dict[str, Any] = {}
    rest, flags = list(words), flags_of(kind)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            path = _positional(word, flags)
            changes[path] = (*changes.get(path, ()), word)
            continue
        name, equals, value = word.partition("=")
        flag, is_off = _find(name, flags)
        given = value if equals else None
        changes[flag.path] = _understood(name, _value(name, flag, given, is_off, rest), flag, is_off)
    return changes


def _positional(word: str, flags: Mapping[str, Flag]) -> str:
    """The path of the flag that takes words without a flag. Raises ValueError if there is none, or for -x."""
    if "" not in flags or re.match(r"-\w", word):
        raise ValueError(f"{word} is not a flag: flags begin with --")
    return flags[""].path


def _value(name: str, flag: Flag, given: str | None, is_off: bool, rest: list[str]) -> Any:
    """The value of a flag: what follows "=", or else the next words, which it takes from `rest`."""
    if flag.takes == "tree":
        raise ValueError(f"{name} takes no value itself: use {name}.NAME.FLAG VALUE, e.g. {name}.local.norm rms")
    if flag.takes == "several":
        return tuple(_take(rest)) if given is None else (given,)
    if given is not None:
        return given
    if flag.takes == "switch":
        return rest.pop(0) if not is_off and rest and rest[0].lower() in ("true", "false") else "true"
    if not rest or rest[0].startswith("--"):
        raise ValueError(f"{name} needs a value")
    return rest.pop(0)


def _find(name: str, flags: Mapping[str, Flag]) -> tuple[Flag, bool]:
    """(the flag, whether it is switched off). Raises ValueError if there is no such flag."""
    typed = name.removeprefix("--").replace("-", "_")
    if typed in flags:
        return flags[typed], False
    above, dot, last = typed.rpartition(".")
    on = f"{above}{dot}{last.removeprefix('no_')}"
    if last.startswith("no_") and on in flags and flags[on].takes == "switch":
        return flags[on], True
    for flag in flags.values():
        if flag.takes == "tree" and typed.startswith(f"{flag.name}.") and typed.count(".") > flag.name.count(".") + 1:
            return Flag(typed, flag.path + typed.removeprefix(flag.name), Any, positional=False), False
    hint = nearest(typed, [name for name in flags if name])
    meant = hint.replace("perhaps ", "perhaps --").replace("_", "-")
    raise ValueError(f"{name} is not a flag: see --help for all of them{meant}")


def _take(rest: list[str]) -> Iterator[str]:
    while rest and not rest[0].startswith("--"):
        yield rest.pop(0)


def _understood(name: str, value: Any, flag: Flag, is_off: bool) -> Any:
    """A value as `override` takes it. Raises ValueError for a switch that is neither on nor off."""
    if flag.takes == "switch":
        if is_off and value != "true" or value.lower() not in ("true", "false"):
            raise ValueError(f"{name}={value} is wrong: use true or false")
        return (value.lower() == "true") != is_off
    if value == "None" and (flag.can_be_none or flag.hint is Any):
        return None
    return value
