"""The dataclass for flags: frozen, keyword-only, every value checked, every mistake one sentence."""

from functools import wraps
from typing import dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from configuration.mistakes import explain

CHECKED = ConfigDict(extra="forbid", validate_default=True)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def flags(cls: type) -> type:
    """Make a frozen, keyword-only dataclass whose constructor raises ValueError with one sentence for each mistake."""
    from configuration.tree import flag_names

    cls = dataclass(frozen=True, kw_only=True, config=CHECKED)(cls)
    checked_init = cls.__init__

    @wraps(checked_init)
    def __init__(self, *args, **kwargs):
        try:
            checked_init(self, *args, **kwargs)
        except ValidationError as error:
            raise ValueError(explain(error, flag_names(cls))) from None

    cls.__init__ = __init__
    return cls
