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
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from config import Config, flat, load_config, override
from experiments.searching.values import (
    Chance,
    Choice,
    Range,
    Trial,
    holds,
    parents_first,
    read_condition,
    read_parameter,
)
from presets import PRESETS, load_preset

TRIES = 200  # random points among which one must accept a value


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
        except Exception as error:  # whatever a program may raise
            raise ValueError(f"space={path} ends in {type(error).__name__}: {error}") from error
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
        settings = declared.get("set") or {}
        if not isinstance(settings, dict):
            raise ValueError("expected a mapping with set: {flag: value}")
        base = base or override(_base(declared.get("base", "default")), settings)
        flags = set(_flat(base))
        parameters, when = {}, {}
        for flag, spec in declared["search"].items():
            if flag not in flags:
                raise ValueError(f"search: {flag} is no flag: see python train.py --help for all of them")
            parameters[flag] = read_parameter(flag, spec)
            if isinstance(spec, dict) and "when" in spec:
                when[flag] = read_condition(f"search: {flag}: when", spec["when"], set(declared["search"]) - {flag})
        forbidden = [read_condition("forbid", one, flags) for one in declared.get("forbid") or []]
        space = cls(base, parents_first(parameters, when), when, forbidden, declared)
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
            if holds(self.when.get(name, {}), flags):
                flags[name] = parameter.suggest(trial, name)
        return flags

    def problem(self, flags: Mapping[str, Any]) -> str | None:
        """Why the space forbids a point; None where it does not."""
        everything = _flat(self.base) | dict(flags)
        for one in self.forbidden:
            if holds(one, everything):
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

    def base_point(self) -> dict[str, Any] | None:
        """The base's own values, as Optuna names them; None where it lies outside of the space."""
        base, flags = _flat(self.base), {}
        for name, parameter in self.parameters.items():
            if holds(self.when.get(name, {}), flags):
                if not parameter.contains(base[name]):
                    return None
                flags[name] = base[name]
        return {name: self.parameters[name].label(value) for name, value in flags.items()}

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


def _flat(cfg: Config) -> dict[str, Any]:
    """Every flag by its dotted name, with a value as a file would have it."""
    return json.loads(json.dumps(flat(cfg)))
