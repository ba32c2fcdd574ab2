"""The points of a search: which flags vary, over which values, when, and what is forbidden."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from config import Config, flat
from experiments.searching.values import Chance, Choice, Range, Trial, holds


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
        flags: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if holds(self.when.get(name, {}), flags):
                flags[name] = parameter.suggest(trial, name)
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
            flags = self.suggest(Chance(0, self._labels(dict(zip(values, combination, strict=True)))))
            if not self.problem(flags):
                point = self._labels(flags)
                points[json.dumps(point)] = point
        return list(points.values())

    def base_point(self) -> dict[str, Any] | None:
        """The base's own values, as Optuna names them; None = the base lies outside the space."""
        base, flags = plain_flags(self.base), {}
        for name, parameter in self.parameters.items():
            if holds(self.when.get(name, {}), flags):
                if not parameter.contains(base[name]):
                    return None
                flags[name] = base[name]
        return self._labels(flags)

    def _labels(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.parameters[name].label(value) for name, value in flags.items()}


def plain_flags(cfg: Config) -> dict[str, Any]:
    """Every flag by its dotted name, with a value as a file has it."""
    return plain(flat(cfg))


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))
