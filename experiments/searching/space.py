"""The points of a search: which flags vary, over which values, when, and what is forbidden."""

import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Union

from config import Config, flat

if TYPE_CHECKING:
    from optuna.trial import BaseTrial  # the command line reads a space without Optuna


class Chance:
    """Draw a point at random, without a study; `given` values are not drawn."""

    def __init__(self, seed: int, given: Mapping[str, Any] | None = None):
        self._random, self._given = random.Random(seed), given or {}

    def suggest_categorical(self, name: str, choices: list) -> Any:
        return self._given.get(name, self._random.choice(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self._given.get(name, self._random.randrange(low, high + 1, step))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return self._given.get(name, self._random.uniform(low, high))


Trial = Union["BaseTrial", Chance]


@dataclass(frozen=True)
class Choice:
    """One of some values, of any type that YAML has."""

    values: list

    def suggest(self, trial: Trial, name: str) -> Any:
        by_label = {self.label(value): value for value in self.values}
        return by_label[trial.suggest_categorical(name, list(by_label))]

    def label(self, value: Any) -> Any:
        """Optuna's name of a value: it keeps numbers, strings, booleans and None; a list is kept as JSON."""
        return json.dumps(value) if isinstance(value, list | dict) else value

    def contains(self, value: Any) -> bool:
        return value in self.values

    def extremes(self) -> list:
        return self.values

    def grid(self) -> list:
        return self.values


@dataclass(frozen=True)
class Range:
    """The integers, or the floats, from low to high, both included."""

    kind: str  # int or float
    low: float
    high: float
    step: float | None = None
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        if self.kind == "int":
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def label(self, value: float) -> float:
        return value

    def contains(self, value: Any) -> bool:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return math.isclose(steps, round(steps)) or self.step is None and self.kind == "float"

    def extremes(self) -> list:
        return [self.low, self.high]

    def grid(self) -> list | None:
        """Every value; None = there is no step."""
        step = self.step or (1 if self.kind == "int" and not self.log else None)
        if step is None:
            return None
        return [min(self.high, self.low + i * step) for i in range(int((self.high - self.low) / step + 1e-9) + 1)]


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


def holds(condition: Mapping[str, list], flags: Mapping[str, Any]) -> bool:
    return all(flag in flags and flags[flag] in values for flag, values in condition.items())
