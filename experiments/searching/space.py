"""What a search may vary, declared once: choices, integers, floats over any flag, when they apply, what is forbidden.

    base: default                                         # a preset, or a file that --config takes
    set: {train.graded_stories: 0}                        # the same in every trial
    search:
      model.mlp: [mlp, glu]                               # choices
      model.num_layers: {int: [2, 6], step: 2}            # both ends included
      train.lr: {float: [1e-3, 2e-2], log: true}
      model.activation: {choice: [silu, gelu], when: {model.mlp: glu}}
    forbid:
      - {model.mlp: glu, model.num_layers: [4, 6]}        # any of a list
"""

import itertools
import json
import random
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from config import Config, load_config, override, to_dict
from presets import PRESETS, load_preset

TRIES = 200  # random points among which one must accept a value


class Trial(Protocol):
    """What draws a point: an optuna.Trial, or Chance."""

    def suggest_categorical(self, name: str, choices: list) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...


class Chance:
    """Draws points at random, without a study; `given` values are not drawn."""

    def __init__(self, seed: int, given: Mapping[str, Any] | None = None):
        self._random, self._given = random.Random(seed), given or {}

    def suggest_categorical(self, name: str, choices: list) -> Any:
        return self._given.get(name, self._random.choice(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self._given.get(name, self._random.randrange(low, high + 1, step))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return self._given.get(name, self._random.uniform(low, high))


@dataclass(frozen=True)
class Choice:
    """One of some values, of any kind that YAML has."""

    values: list

    def suggest(self, trial: Trial, name: str) -> Any:
        return self._by_label[trial.suggest_categorical(name, list(self._by_label))]

    @property
    def _by_label(self) -> dict:
        """Optuna keeps numbers, strings, booleans and None; a list goes by its JSON."""
        return {json.dumps(value) if isinstance(value, list | dict) else value: value for value in self.values}

    def label(self, value: Any) -> Any:
        """What Optuna calls a value."""
        return next(label for label, known in self._by_label.items() if known == value)

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

    def extremes(self) -> list:
        return [self.low, self.high]

    def grid(self) -> list | None:
        """Every value; None where there is no step to count by."""
        step = self.step or (1 if self.kind == "int" and not self.log else None)
        if step is None:
            return None
        return [self.low + i * step for i in range(int((self.high - self.low) / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Space:
    """The points of a search: every flag that varies, on a base configuration."""

    base: Config
    parameters: dict[str, Choice | Range]
    when: dict[str, dict[str, list]] = field(default_factory=dict)  # flag -> values of others under which it varies
    forbidden: list[dict[str, list]] = field(default_factory=list)
    plain: dict[str, Any] = field(default_factory=dict, compare=False)  # as it was declared

    @classmethod
    def load(cls, path: str | Path) -> "Space":
        """Read a .yaml file, or a .py file that defines SPACE in the same form.

        Raises ValueError naming the file, the flag and what is wrong.
        """
        path = Path(path)
        try:
            if path.suffix == ".py":
                declared = runpy.run_path(str(path)).get("SPACE")
            else:
                declared = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"space={path} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"space={path} is no YAML: {' '.join(str(error).split())}") from None
        try:
            return cls.from_plain(declared)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_plain(cls, declared: Any, base: Config | None = None) -> "Space":
        """The space that a mapping declares; `base` in place of the one it names. Raises ValueError."""
        if not isinstance(declared, dict) or not isinstance(declared.get("search"), dict) or not declared["search"]:
            raise ValueError("expected a mapping with search: {flag: values}")
        if unknown := sorted(set(declared) - {"base", "set", "search", "forbid"}):
            raise ValueError(f"{unknown[0]!r} is not known: use base, set, search and forbid")
        base = base or override(_base(declared.get("base", "default")), declared.get("set") or {})
        flags = {f"{section}.{name}" for section, tree in to_dict(base).items() for name in tree}
        parameters, when = {}, {}
        for flag, spec in declared["search"].items():
            if flag not in flags:
                raise ValueError(f"search: {flag} is no flag: see python train.py --help for all of them")
            parameters[flag] = _parameter(flag, spec)
            if isinstance(spec, dict) and "when" in spec:
                when[flag] = _condition(f"search: {flag}: when", spec["when"], set(declared["search"]) - {flag})
        forbidden = [_condition("forbid", one, flags) for one in declared.get("forbid") or []]
        space = cls(base, _parents_first(parameters, when), when, forbidden, declared)
        space._require_usable()
        return space

    def on(self, base: Config | None) -> "Space":
        """The same on another base, None = its own. Raises ValueError where that changes a flag that is searched."""
        for flag in self.parameters if base else ():
            section, name = flag.split(".")
            if getattr(getattr(base, section), name) != getattr(getattr(self.base, section), name):
                raise ValueError(f"{flag} is searched by the space: leave the flag out, or take it out of the space")
        return replace(self, base=base) if base else self

    def to_plain(self) -> dict[str, Any]:
        """As it was declared, for JSON; `from_plain` gives the space again."""
        return self.plain

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a point: the flags that apply, by their dotted names."""
        flags: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if _holds(self.when.get(name, {}), flags):
                flags[name] = parameter.suggest(trial, name)
        return flags

    def problem(self, flags: Mapping[str, Any]) -> str | None:
        """Why the space forbids a point; None where it does not."""
        everything = {f"{section}.{name}": value for section, tree in to_dict(self.base).items()
                      for name, value in tree.items()} | dict(flags)
        for one in self.forbidden:
            if _holds(one, everything):
                return "the space forbids " + ", ".join(f"{flag}={everything[flag]}" for flag in one)
        return None

    def grid(self) -> list[dict[str, Any]]:
        """Every point that is not forbidden, as Optuna names them. Raises ValueError where there is no step."""
        values = {name: parameter.grid() for name, parameter in self.parameters.items()}
        if endless := [name for name, steps in values.items() if steps is None]:
            raise ValueError(f"sampler=grid needs choices or a step: {endless[0]} has neither")
        points = {}
        for combination in itertools.product(*values.values()):
            flags = self.suggest(Chance(0, {name: self.parameters[name].label(value)
                                            for name, value in zip(values, combination, strict=True)}))
            if not self.problem(flags):
                point = {name: self.parameters[name].label(value) for name, value in flags.items()}
                points[json.dumps(point)] = point
        return list(points.values())

    def _require_usable(self) -> None:
        """Raise ValueError naming a value that no point of the space can have."""
        for name, parameter in self.parameters.items():
            for value in parameter.extremes():
                given = {name: parameter.label(value)} | dict(self._parents(name))
                if refusal := self._refusal(name, given):
                    raise ValueError(f"search: {name}: {value!r} is never accepted: {refusal}")

    def _parents(self, name: str) -> Iterator[tuple[str, Any]]:
        """Values of other flags under which one applies."""
        for parent, values in self.when.get(name, {}).items():
            yield parent, self.parameters[parent].label(values[0])
            yield from self._parents(parent)

    def _refusal(self, name: str, given: Mapping[str, Any]) -> str | None:
        """What is wrong with every point that has the given values, as far as was tried; None where one is right."""
        said = ""
        for seed in range(TRIES):
            flags = self.suggest(Chance(seed, given))
            try:
                override(self.base, flags)
            except ValueError as error:
                if not said or str(error).startswith(name):
                    said = str(error)
            else:
                return None
        return said


def _base(name: str) -> Config:
    """A preset's configuration, or a file's."""
    return load_preset(name) if name in PRESETS else load_config(Path(name))


def _parameter(flag: str, spec: Any) -> Choice | Range:
    """What a flag's line declares. Raises ValueError."""
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
    convert = int if kind == "int" else float
    try:  # YAML takes 1e-3 for a text
        low, high, step = *(convert(value) for value in given), None if step is None else convert(step)
        if kind == "int" and [low, high] != [float(value) for value in given]:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {kind}: {given} with step {step}: expected two numbers, low and high") from None
    if low > high:
        raise ValueError(f"{where}: {kind}: [{low:g}, {high:g}] has its ends the wrong way round")
    if step is not None and (step <= 0 or log):
        raise ValueError(f"{where}: step={step:g} must be above 0, and does not go with log")
    if log and low <= 0:
        raise ValueError(f"{where}: log needs a range above 0, not from {low:g}")
    return Range(kind, low, high, step, bool(log))


def _parents_first(parameters: dict[str, Any], when: Mapping[str, Mapping[str, list]]) -> dict[str, Any]:
    """In an order in which each flag comes after those that it depends on. Raises ValueError where there is none."""
    placed: dict[str, Any] = {}
    while len(placed) < len(parameters):
        ready = [name for name in parameters if name not in placed and set(when.get(name, {})) <= set(placed)]
        if not ready:
            raise ValueError(f"search: {', '.join(sorted(set(parameters) - set(placed)))} wait for each other")
        placed |= {name: parameters[name] for name in ready}
    return placed


def _condition(where: str, given: Any, flags: set[str]) -> dict[str, list]:
    """flag -> the values under which it holds. Raises ValueError where a flag is none of `flags`."""
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{where}: expected {{flag: value}}, not {given!r}")
    if unknown := sorted(set(given) - flags):
        raise ValueError(f"{where}: {unknown[0]} is no flag{' that is searched' if 'when' in where else ''}")
    return {flag: value if isinstance(value, list) else [value] for flag, value in given.items()}


def _holds(condition: Mapping[str, list], flags: Mapping[str, Any]) -> bool:
    return all(flag in flags and flags[flag] in values for flag, values in condition.items())
