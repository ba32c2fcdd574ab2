"""The file that declares a space: choices, integers, floats over any flag, when they apply, what is forbidden.

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

import json
import runpy
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from config import load_config, override
from configuration.yaml_1_2 import read_yaml
from experiments.searching.space import Chance, Choice, Range, Space, plain_flags
from presets import PRESETS, load_preset

TRIES = 200  # random points among which one must accept a value


def load_space(path: str | Path) -> Space:
    """Read a .yaml file, or a .py file that defines SPACE in the same form.

    Raises ValueError naming the file, the flag and what is wrong.
    """
    path = Path(path)
    try:
        declared = run_program(path) if path.suffix == ".py" else read_yaml(path)
    except ValueError as error:
        raise ValueError(f"space={error}") from error.__cause__
    try:
        return make_space(declared)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def run_program(path: Path) -> Any:
    """The SPACE that a program defines. Raises ValueError."""
    try:
        return runpy.run_path(str(path)).get("SPACE")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever a program may raise
        raise ValueError(f"{path} ends in {type(error).__name__}: {error}") from error


def make_space(declared: Any) -> Space:
    """The space that a mapping declares. Raises ValueError."""
    if not isinstance(declared, dict) or not isinstance(declared.get("search"), dict) or not declared["search"]:
        raise ValueError("expected a mapping with search: {flag: values}")
    if unknown := sorted(set(declared) - {"base", "set", "search", "forbid"}):
        raise ValueError(f"{unknown[0]!r} is not known: use base, set, search and forbid")
    settings, name = declared.get("set") or {}, declared.get("base", "default")
    if not isinstance(settings, dict):
        raise ValueError("expected a mapping with set: {flag: value}")
    if not isinstance(name, str):
        raise ValueError("expected base: the name of a preset or a file; flags belong to set: {flag: value}")
    if not isinstance(declared.get("forbid") or [], list):
        raise ValueError("expected a list with forbid: [{flag: value}]")
    base = override(load_preset(name) if name in PRESETS else load_config(Path(name)), settings)
    flags = set(plain_flags(base))
    parameters, when = {}, {}
    for flag, spec in declared["search"].items():
        if flag not in flags:
            raise ValueError(f"search: {flag} is not a flag: see python train.py --help for all of them")
        parameters[flag] = read_parameter(flag, spec)
        if isinstance(spec, dict) and "when" in spec:
            when[flag] = read_condition(f"search: {flag}: when", spec["when"], set(declared["search"]) - {flag})
    forbidden = [read_condition("forbid", one, flags) for one in declared.get("forbid") or []]
    for flag, condition in when.items():
        require_possible(f"search: {flag}: when", condition, parameters)
    space = Space(base, parents_first(parameters, when), when, forbidden, declared)
    require_usable(space)
    return space


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


def require_possible(where: str, condition: Mapping[str, list], parameters: Mapping[str, Choice | Range]) -> None:
    """Raise ValueError if a condition names a value that is never searched, or none."""
    for flag, values in condition.items():
        wrong = [value for value in values if not parameters[flag].contains(value)]
        if wrong or not values:
            named = wrong[0] if wrong else "one of no values"
            raise ValueError(f"{where}: {flag} is never {named}: use a value of its search")


def require_usable(space: Space) -> None:
    """Raise ValueError naming a value that no point of the space can have."""
    for name, parameter in space.parameters.items():
        for value in parameter.extremes():
            given = {name: parameter.label(value)} | dict(parents(space, name))
            if refusal := refusal_of(space, name, given):
                raise ValueError(f"search: {name}: {value!r} is never accepted: {refusal}")


def parents(space: Space, name: str) -> Iterator[tuple[str, Any]]:
    """Values of other flags under which a flag applies."""
    for parent, values in space.when.get(name, {}).items():
        yield parent, space.parameters[parent].label(values[0])
        yield from parents(space, parent)


def refusal_of(space: Space, name: str, given: Mapping[str, Any]) -> str | None:
    """What is wrong with each of TRIES points that have the given values; None = a point is accepted."""
    said = ""
    for seed in range(TRIES):
        try:
            override(space.base, space.suggest(Chance(seed, given)))
        except ValueError as error:
            if not said or str(error).startswith(name):
                said = str(error)
        else:
            return None
    return said
