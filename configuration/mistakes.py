"""Error sentences for a wrong configuration, one for each flag."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

REPR = Repr()
REPR.maxstring, REPR.maxother, REPR.maxlevel = 80, 80, 3  # characters, and depth


def explain(error: ValidationError, names: Sequence[str] = ()) -> str:
    """Turn pydantic's errors into one sentence for each flag; `names` are all flags, to suggest the nearest one."""
    return "; ".join(_sentence(problem, names) for problem in error.errors())


def shortened(value: Any) -> str:
    """The value as Python writes it, without the middle of a long one."""
    return REPR.repr(value)


def nearest(given: str, names: Sequence[str], *, cutoff: float = 0.6) -> str:
    """"; perhaps NAME was meant" with the name closest to the given one, or ""."""
    leaf = given.rpartition(".")[2]
    same_leaf = [name for name in names if name.rpartition(".")[2] == leaf]
    leaves = {name.rpartition(".")[2]: name for name in reversed(names)}
    found = same_leaf or get_close_matches(given, names, n=1, cutoff=cutoff)
    found = found or [leaves[match] for match in get_close_matches(leaf, leaves, n=1, cutoff=cutoff)]
    return f"; perhaps {found[0]} was meant" if found else ""


def unknown(flag: str, names: Sequence[str]) -> str:
    """The sentence for a flag that does not exist."""
    return f"{flag} is not a flag: see --help for all of them{nearest(flag, names)}"


def _sentence(problem: Mapping[str, Any], names: Sequence[str]) -> str:
    # the place in a list and the member of a union are not part of the flag
    parts = [part for part in problem["loc"] if isinstance(part, str) and not part.startswith(("literal[", "float"))]
    flag = ".".join(parts)
    given = problem["input"]
    match problem["type"]:
        case "value_error":
            return f"{flag}.{problem['ctx']['error']}" if flag else str(problem["ctx"]["error"])
        case "literal_error":
            choices = problem["ctx"]["expected"].replace("'", "")
            words = choices.replace(" or ", ", ").split(", ")
            hint = nearest(given, words, cutoff=0.5) if isinstance(given, str) else ""
            return f"{flag}={shortened(given)} is not known: use one of {choices}{hint}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            while isinstance(given, Mapping) and given:  # modle.dim, not modle
                name, given = next(iter(given.items()))
                flag += f".{name}"
            return unknown(flag, names)
        case "dataclass_type":
            return f"{flag}={shortened(given)} is wrong: it is a group of flags"
        case "int_parsing" | "int_from_float" | "int_type":
            return f"{flag}={shortened(given)} is wrong: use a whole number"
        case "tuple_type" | "list_type":
            return f"{flag}={shortened(given)} is wrong: use a list, as in [{str(given)[:80]}]"
        case "float_parsing" | "float_type":
            return f"{flag}={shortened(given)} is wrong: use a number"
        case _:
            return f"{flag}={shortened(given)} is wrong: {problem['msg'][0].lower()}{problem['msg'][1:]}"
