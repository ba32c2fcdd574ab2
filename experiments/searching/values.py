"""The values that a flag may take in a search, and how a space's file declares them."""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Union

from pydantic import TypeAdapter, ValidationError

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


def read_parameter(flag: str, spec: Any) -> Choice | Range:
    """The values that a flag's line declares. Raises ValueError."""
    where = f"search: {flag}"
    spec = {"choice": spec} if isinstance(spec, list) else spec
    kinds = [kind for kind in ("choice", "int", "float") if isinstance(spec, dict) and kind in spec]
    if len(kinds) != 1:
        raise ValueError(f"{where}: expected a list of choices, or one of choice, int and float with a list")
    allowed = {kinds[0], "when"} | (set() if kinds[0] == "choice" else {"step", "log"})
    if unknown := sorted(set(spec) - allowed):
        raise ValueError(f"{where}: {unknown[0]!r} is not known here: use {', '.join(sorted(allowed))}")
    given = spec[kinds[0]]
    if not isinstance(given, list) or not given:
        raise ValueError(f"{where}: {kinds[0]} expects a list, not {given!r}")
    if kinds[0] == "choice":
        if len({json.dumps(value) for value in given}) < len(given):
            raise ValueError(f"{where}: a choice stands there twice")
        return Choice(given)
    return _range(where, kinds[0], given, spec.get("step"), spec.get("log", False))


def _range(where: str, kind: str, given: list, step: Any, log: Any) -> Range:
    number = int if kind == "int" else float
    try:  # YAML reads 1e-3 as a string
        low, high, step = TypeAdapter(tuple[number, number, number | None]).validate_python([*given, step])
    except ValidationError:
        raise ValueError(f"{where}: {kind}: {given} with step {step}: expected two numbers, low and high") from None
    if low > high:
        raise ValueError(f"{where}: {kind}: [{low:g}, {high:g}] has its ends the wrong way round")
    if step is not None and (step <= 0 or log):
        raise ValueError(f"{where}: step={step:g} must be above 0, and does not go with log")
    if log and low <= 0:
        raise ValueError(f"{where}: log needs a range above 0, not from {low:g}")
    return Range(kind, low, high, step, bool(log))


def parents_first(parameters: dict[str, Any], when: Mapping[str, Mapping[str, list]]) -> dict[str, Any]:
    """Sort flags so that each comes after those that it depends on. Raises ValueError if they form a circle."""
    sorter = TopologicalSorter({name: when.get(name, {}) for name in parameters})
    try:
        return {name: parameters[name] for name in sorter.static_order()}
    except CycleError as error:
        raise ValueError(f"search: {', '.join(sorted(set(error.args[1])))} wait for each other") from None


def read_condition(where: str, given: Any, flags: set[str]) -> dict[str, list]:
    """A condition as flag -> the values under which it holds. Raises ValueError if a flag is not in `flags`."""
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{where}: expected {{flag: value}}, not {given!r}")
    if unknown := sorted(set(given) - flags):
        raise ValueError(f"{where}: {unknown[0]} is not a flag{' that is searched' if 'when' in where else ''}")
    return {flag: value if isinstance(value, list) else [value] for flag, value in given.items()}


def holds(condition: Mapping[str, list], flags: Mapping[str, Any]) -> bool:
    return all(flag in flags and flags[flag] in values for flag, values in condition.items())
