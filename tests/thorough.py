"""What `make test-thorough` runs beside `make test`: further cases of the same kinds.

Every kind of test, and every word of a menu, is in each run.
"""

from collections.abc import Iterable
from typing import Any

import pytest

thorough = pytest.mark.thorough


def some(cases: Iterable[Any], every: int) -> list[Any]:
    """The cases of a test: the first and each `every`-th after it in each run, the others in a thorough one."""
    return [case if not number % every else further(case) for number, case in enumerate(cases)]


def further(case: Any) -> Any:
    """A case, of one argument or of a tuple of them, that only a thorough run has."""
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=thorough)
