"""Read sizes, durations and counts such as 2GB, 50m and 10M."""

import math
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


def parse_count(number: str) -> float:
    """The number in e.g. "500k", "1M" or "2.5B"; 0 if it is not one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMB]?)", number)
    return float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "B": 1e9}[found[2].replace("K", "k")] if found else 0.0


def in_bfloat16(number: float) -> float:
    """The nearest number that bfloat16 has, of 8 binary digits."""
    digits, exponent = math.frexp(number)
    return math.ldexp(round(digits * 2**8), exponent - 8)
