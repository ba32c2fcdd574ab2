"""Read sizes and durations such as 2GB and 50m."""

import re

from pydantic import ByteSize, TypeAdapter, ValidationError


def parse_bytes(size: str) -> int:
    """The bytes in e.g. "800MB", "2GB" or "1.5GiB"; 0 if it is not a size."""
    try:
        return TypeAdapter(ByteSize).validate_python(size)
    except ValidationError:
        return 0


def parse_seconds(duration: str) -> float:
    """The seconds in e.g. "50m"; 0 if it is not a duration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
