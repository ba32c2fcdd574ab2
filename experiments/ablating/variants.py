"""The variants of an ablation: the flags that each changes on the base, and its name."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from config import Config, flat, get, override, replace, to_dict
from configuration.command_line import spell_value
from configuration.mistakes import unknown
from configuration.yaml_1_2 import parse_yaml
from experiments.ablating.ablation_options import AblationOptions
from families.ideas import IDEAS

BASE = "base"
REFUSED = {"train.name": "it names the run", "train.time_limit": "runs are to end by themselves"}
KNOBS = {"width": ("model.dim",), "depth": ("model.num_layers",), "mlp": ("model.hidden_dim", "model.hidden_mult"),
         "steps": ("train.steps",)}  # what the matching changes
spell = partial(spell_value, between=",")
LONGEST = 60  # characters of a variant's part of a run's name


@dataclass(frozen=True)
class Variant:
    """A configuration that differs from the base in a few flags."""

    label: str  # norm=layer mlp=glu
    slug: str  # norm-layer-mlp-glu, for names of files
    flags: dict[str, Any]  # those it changes
    cfg: Config


def make_variants(options: AblationOptions, base: Config) -> list[Variant]:
    """The base and its variants. Raises ValueError that names every mistake."""
    varied = [read_values(word, base) for word in options.vary]
    flags = [flag for flag, _ in varied]
    if twice := next((flag for flag in flags if flags.count(flag) > 1), None):
        raise ValueError(f"vary={twice} is given twice: give all its values at once, as in {twice}=a,b")
    choices = [[(flag, value) for value in values] for flag, values in varied]
    points = itertools.product(*choices) if options.grid else ((one,) for one in itertools.chain(*choices))
    points = [*map(dict, points), *(read_point(words, base) for words in options.also)]
    points += [IDEAS[name].flags for name in (IDEAS if "all" in options.ideas else options.ideas)]
    _require_free(options, {flag for point in points for flag in point})
    variants = [Variant(BASE, BASE, {}, base), *_distinct(points, base)]
    if len(variants) == 1:
        raise ValueError("nothing is varied: give another value than the base's, as in --vary model.norm=rms,layer")
    _require_distinct_seeds(variants, options.seeds + bool(options.sweep))
    return variants


def read_values(word: str, base: Config) -> tuple[str, list[Any]]:
    """Read flag=value,value. Raises ValueError."""
    flag, equals, text = word.partition("=")
    known = flat(base)
    if flag not in known:
        raise ValueError(unknown(flag, list(known)))
    if not equals or not text:
        raise ValueError(f"{word}: expected values, as in {flag}=a,b")
    if flag in REFUSED:
        raise ValueError(f"{flag} cannot be varied: {REFUSED[flag]}")
    try:
        values = parse_yaml(f"[{text}]", Path(flag))
    except ValueError:
        raise ValueError(f"{word}: expected values with commas between them, lists in brackets") from None
    values = [None if value == "None" else value for value in values]
    if isinstance(known[flag], tuple):
        values = [value if isinstance(value, list) else [value] for value in values]
    return flag, values


def read_point(words: str, base: Config, option: str = "also") -> dict[str, Any]:
    """Read "flag=value flag=value" of an option. Raises ValueError."""
    point = {}
    for word in words.split():
        flag, values = read_values(word, base)
        if len(values) > 1:
            raise ValueError(f"{option}={words!r} gives {flag} several values: one variant has one")
        point[flag] = values[0]
    return point


def flags_line(flags: Mapping[str, Any]) -> str:
    """Flags and their values, without the sections."""
    return " ".join(f"{flag.partition('.')[2]}={spell(value)}" for flag, value in flags.items())


def slug(label: str) -> str:
    """A label as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:LONGEST]


def short_names(flags: Iterable[str]) -> dict[str, str]:
    """Flags without their sections, unless that makes two alike."""
    flags = list(dict.fromkeys(flags))
    short = {flag: flag.partition(".")[2] for flag in flags}
    return {flag: flag if list(short.values()).count(name) > 1 else name for flag, name in short.items()}


def _distinct(points: Sequence[dict[str, Any]], base: Config) -> list[Variant]:
    """A variant for each point, without the base and duplicates. Raises ValueError."""
    names, found, wrong = short_names(flag for point in points for flag in point), {}, []
    for point in points:
        try:
            cfg = override(base, point)
        except ValueError as error:
            wrong.append(f"{' '.join(f'{flag}={spell(value)}' for flag, value in point.items())}: {error}")
            continue
        flags = {flag: get(cfg, flag) for flag in point if get(cfg, flag) != get(base, flag)}
        label = " ".join(f"{names[flag]}={spell(value)}" for flag, value in flags.items())
        if flags:
            found.setdefault(json.dumps(to_dict(cfg)), Variant(label, slug(label), flags, cfg))
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)))
    slugs = [BASE, *(one.slug for one in found.values())]
    earlier = [slugs[:place].count(slug) for place, slug in enumerate(slugs)][1:]
    return [replace(one, slug=f"{one.slug}-{count + 1}") if count else one
            for one, count in zip(found.values(), earlier, strict=True)]


def _require_free(options: AblationOptions, varied: set[str]) -> None:
    """Raise ValueError if a varied flag is also swept or changed by the matching."""
    for flag in KNOBS.get(options.settled_match_by, ()):
        if flag in varied:
            raise ValueError(f"{flag} is varied, and is what match_by={options.settled_match_by} changes: use another "
                             "--match-by, or --match none")
    if options.sweep and (flag := options.sweep.partition("=")[0]) in varied:
        raise ValueError(f"{flag} is varied and swept: leave it out of one of them")


def _require_distinct_seeds(variants: list[Variant], count: int) -> None:
    """Raise ValueError if two variants share a run."""
    taken: dict[str, dict[int, str]] = {}
    for variant in variants:
        train = variant.cfg.train
        same = json.dumps(to_dict(replace(variant.cfg, train=replace(train, seed=0))))
        for seed in range(train.seed, train.seed + count):
            if other := taken.setdefault(same, {}).get(seed):
                raise ValueError(f"{variant.label} and {other} would share the run of train.seed={seed}: give seeds "
                                 f"that lie {count} apart or more")
            taken[same][seed] = variant.label
