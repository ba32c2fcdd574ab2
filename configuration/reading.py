"""Read files that strangers may have written. What is wrong with one is a ValueError in one sentence."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

T = TypeVar("T")
MAX_BYTES = 256 * 2**20  # of a file that is read whole
MAX_SHOWN = 60  # characters of a wrong value in a sentence
Count = Annotated[int, Field(ge=0, lt=2**63)]  # a number of things, or bytes
Finite = Annotated[float, Field(allow_inf_nan=False)]


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading. Raises ValueError if it is missing, cannot be read, or is no file, such as a pipe."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would wait for its other end
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path.name} cannot be read: it is not a file")
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file. Raises ValueError as `open_file` does, or if it is too large."""
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise ValueError(f"{path.name} cannot be read: its {size:,} bytes are more than {max_bytes:,}")
        return file.read()


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file. Raises ValueError as `read_bytes` does, or if it is not UTF-8."""
    return decoded(read_bytes(path, max_bytes), path.name)


def decoded(data: bytes, name: str) -> str:
    """The text of UTF-8 bytes; `name` is the file's, for the sentence. Raises ValueError."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} cannot be read: it is not UTF-8 (byte {error.start})") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises ValueError if it cannot be read."""
    return parse_json(read_text(path), path.name)


def parse_json(text: str | bytes, name: str) -> Any:
    """The value of a JSON text; `name` is the file's, for the sentence. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} cannot be read: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None


def read_as(kind: TypeAdapter[T], path: Path) -> T:
    """The value in a JSON file, checked: every field of its type. Raises ValueError if it is not."""
    return check_as(kind, read_json(path), path.name)


def check_as(kind: TypeAdapter[T], value: Any, name: str) -> T:
    """A value that was read from a file, checked; `name` is the file's, for the sentence. Raises ValueError."""
    with checked(name):
        return kind.validate_python(value, strict=True)


@contextlib.contextmanager
def checked(name: str) -> Iterator[None]:
    """Inside, what pydantic finds wrong with the content of a file is a ValueError in one sentence."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place, given = ".".join(map(str, problem["loc"])), repr(problem["input"])[:MAX_SHOWN]
        given = f"{place}={given}: " if place else ""
        message = problem["msg"][0].lower() + problem["msg"][1:]
        raise ValueError(f"{name} cannot be read: {given}{message}") from None
