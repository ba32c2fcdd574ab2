"""The text in a row of a table: a column, a column inside a column, or a chat."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from configuration.reading import parse_json

JSON = "extension<arrow.json>"  # the type of a column with values of several types, each written as JSON
TEXT = re.compile(f"(large_)?string(_view)?|null|{JSON}")
CHAT = re.compile(r"(large_)?list<\w+: struct<.*\b(content|value): ")
ROLES, CONTENTS = ("role", "from"), ("content", "value")  # of a message, by either of two customs
BETWEEN_MESSAGES = "\n\n"
MISSING, NOT_TEXT, BLANK = "without it or null", "not text", "blank"  # why a row is left out


class Column(NamedTuple):
    """Where the text of a row stands: in the column `top`, below it at `path`. `name` is what the user calls it."""

    name: str
    top: str
    path: tuple[str, ...] = ()


def column_types(rows: Any) -> dict[str, str]:
    """The type of each column of an Arrow table, by name; below a column of structs also of data.body."""
    return dict(_types((), rows.schema))


def _types(above: tuple[str, ...], fields: Any) -> Iterator[tuple[str, str]]:
    import pyarrow

    for field in fields:
        place = (*above, field.name)
        yield ".".join(place), str(field.type)
        if pyarrow.types.is_struct(field.type):
            yield from _types(place, field.type)


def find_column(columns: dict[str, str], asked: str | None) -> Column:
    """The column of the text: `asked`, else `text`. Raises ValueError, with what is wrong, without one."""
    name = asked or "text"
    parts = name.split(".")
    if name not in columns and JSON not in [columns.get(".".join(parts[:end])) for end in range(1, len(parts))]:
        raise ValueError("is not a column of")
    if name in columns and not (TEXT.fullmatch(columns[name]) or CHAT.match(columns[name])):
        raise ValueError(f"holds {columns[name]}, not text, in")
    is_inside = columns.get(parts[0], "").startswith(("struct<", JSON))
    return Column(name, parts[0], tuple(parts[1:])) if is_inside else Column(name, name)


def texts_in(rows: Any, columns: Sequence[Column], left_out: Counter[str]) -> Iterator[tuple[str, ...]]:
    """The text of each column, row by row of an Arrow table; rows that lack one are counted, by the reason, and left
    out.
    """
    for found in zip(*(cells(rows, column) for column in columns), strict=True):
        bad = next((place for place, (_, reason) in enumerate(found) if reason), None)
        if bad is None:
            yield tuple(text for text, _ in found)
        else:
            left_out[found[bad][1] + f" ({columns[bad].name})" * (len(columns) > 1)] += 1


def cells(rows: Any, column: Column) -> Iterator[tuple[str, str]]:
    """The text in each row of a column, and "" or why there is none."""
    kind = rows.schema.field(column.top).type
    for value in rows.column(column.top).to_pylist():
        value = decoded(kind, value)
        for name in column.path:
            value = value.get(name) if isinstance(value, dict) else None
        text = chat_text(value) if isinstance(value, list) else value
        if isinstance(text, str) and text and not text.isspace():
            yield text, ""
        else:
            yield "", MISSING if value is None else BLANK if isinstance(text, str) else NOT_TEXT


def decoded(kind: Any, value: Any) -> Any:
    """A value of an Arrow type, in which JSON is read."""
    import pyarrow

    if value is None or isinstance(value, str) and str(kind) != JSON:
        return value
    if str(kind) == JSON:
        return parse_json(value, "a value")
    if pyarrow.types.is_struct(kind):
        return {field.name: decoded(field.type, value[field.name]) for field in kind}
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return [decoded(kind.value_type, item) for item in value]
    return value


def chat_text(messages: list[Any]) -> str | None:
    """The messages of a chat as `role: content`, a blank line between two; None if one of them has other parts."""
    lines = []
    for message in messages:
        found = [next((message[name] for name in names if isinstance(message, dict) and name in message), None)
                 for names in (ROLES, CONTENTS)]
        if not all(isinstance(part, str) for part in found):
            return None
        lines.append(": ".join(found))
    return BETWEEN_MESSAGES.join(lines)


def reasons(left_out: Mapping[str, int]) -> str:
    """How many rows of a table were left out, and why; empty if none were."""
    return " ({} left out: {})".format(
        "1 row is" if sum(left_out.values()) == 1 else f"{sum(left_out.values()):,} rows are",
        ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))) if left_out else ""
