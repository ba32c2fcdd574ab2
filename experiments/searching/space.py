"""The points of a search: which flags vary, over which values, when, and what is forbidden."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from config import Config, flat
from experiments.searching.values import Choice, Range, Trial, holds


@dataclass(frozen=True)
class Space:
    """Every flag that varies, on a base configuration."""

    base: Config
    parameters: dict[str, Choice | Range]  # a flag comes after those that it depends on
    when: dict[str, dict[str, list]] = field(default_factory=dict)  # flag -> values of others under which it varies
    forbidden: list[dict[str, list]] = field(default_factory=list)
    plain: dict[str, Any] = field(default_factory=dict, compare=False)  # as it was declared, for JSON

    def on(self, base: Config | None) -> "Space":
        """The same space on another base, None = its own. Raises ValueError if that changes a flag that is searched."""
        if base is None:
            return self
        ours, theirs = plain_flags(self.base), plain_flags(base)
        for flag in self.parameters:
            if theirs[flag] != ours[flag]:
                raise ValueError(f"{flag} is searched by the space: leave the flag out, or take it out of the space")
        return replace(self, base=base)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a point: the flags that apply, by their dotted names."""
        return self._applying(lambda name: self.parameters[name].suggest(trial, name))

    def _applying(self, value_of: Callable[[str], Any]) -> dict[str, Any]:
        """The flags that apply, each with its value."""
        flags: dict[str, Any] = {}
        for name in self.parameters:
            if holds(self.when.get(name, {}), flags):
                flags[name] = value_of(name)
        return flags

    def problem(self, flags: Mapping[str, Any]) -> str | None:
        """Why the space forbids a point; None = it does not."""
        everything = plain_flags(self.base) | dict(flags)
        for one in self.forbidden:
            if holds(one, everything):
                return "the space forbids " + ", ".join(f"{flag}={everything[flag]}" for flag in one)
        return None

    def grid(self) -> list[dict[str, Any]]:
        """Every point that is not forbidden, as Optuna names its values. Raises ValueError if a range has no step."""
        values = {name: parameter.grid() for name, parameter in self.parameters.items()}
        if endless := [name for name, steps in values.items() if steps is None]:
            raise ValueError(f"sampler=grid needs choices or a step: {endless[0]} has neither")
        points = {}
        for combination in itertools.product(*values.values()):
            flags = self._applying(dict(zip(values, combination, strict=True)).__getitem__)
            if not self.problem(flags):
                points[json.dumps(flags)] = self._labels(flags)
        return list(points.values())

    def base_point(self) -> dict[str, Any] | None:
        """The base's own values, as Optuna names them; None = the base lies outside the space."""
        flags = self._applying(plain_flags(self.base).__getitem__)
        inside = all(self.parameters[name].contains(value) for name, value in flags.items())
        return self._labels(flags) if inside else None

    def _labels(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.parameters[name].label(value) for name, value in flags.items()}


def plain_flags(cfg: Config) -> dict[str, Any]:
    """Every flag by its dotted name, with a value as a file has it."""
    return plain(flat(cfg))


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))
