"""The gallery: published architectures, and a ladder up to them.

Without a command it is listed. `python train.py NAME --scale 1M` trains one at a size for a CPU.
"""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from config import Config, diff, flat
from configuration import garbage
from configuration.columns import print_columns
from configuration.command_line import run_command, spell_value
from families import ideas
from families.sizing import read_scale
from presets import ABOUT, PRESETS, at_scale, load_preset

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
MISSING = "-"  # of a flag that a configuration does not have: one of a kind of layer


def main() -> None:
    """Run the subcommand of the command line; without one the gallery is listed."""
    commands = {"list": list_presets, "diff": diff_presets, "show": show, "ideas": list_ideas}
    run_command(sys.argv[1:] or ["list"], commands, "presets.py", __doc__)


def list_presets(*, scale: str | None = None) -> None:
    """List the presets, a line each.

    The cache is what each further token adds in bfloat16: keys and values of layers that see all tokens. A layer with
    a window or a state stops growing: + is what all of them take once their windows are full.

    Args:
        scale: 1M, 10M, ...: at this number of parameters in the blocks; those that have no such size are left out.
    """
    if scale is not None:
        read_scale(scale)
    garbage.wait()
    from showing import gallery  # torch takes a second

    garbage.begin()
    rows = []
    for name in PRESETS:
        about, cfg = ABOUT[name], sized(name, scale, skip=True)
        if cfg is not None:
            count = gallery.spell_parameters(cfg)
            year = str(about.year or MISSING)
            rows.append((name, count, gallery.spell_cache(cfg.model), year, about.paper, about.apart))
    print_columns(("preset", "parameters", "cache a token", "year", "paper", "what sets it apart"), rows,
                  left=("preset", "paper", "what sets it apart"), fold=False)
    print(f"\nwhere the tokenizer decides about the vocabulary, {gallery.VOCAB_SIZE:,} tokens are assumed")


def diff_presets(one: Name, other: Name) -> None:
    """List the flags in which two presets differ, with both values."""
    a, b = (load_preset(name) for name in (one, other))
    values = [flat(cfg) for cfg in (a, b)]
    rows = [(flag, *(spelled(flag, found) for found in values)) for flag in diff(a, b)]
    print_columns(("flag", one, other), rows, left=("flag", one, other))
    if not rows:
        print(f"{one} and {other} differ in no flag")


def show(name: Name, *, scale: str | None = None) -> None:
    """Show the layers of a preset: their pattern, what a layer computes, and its sizes.

    Args:
        scale: 1M, 10M, ...: at this number of parameters in its blocks.
    """
    cfg, about = sized(name, scale), ABOUT[name]
    garbage.wait()
    from showing import gallery

    garbage.begin()
    published = ", ".join(map(str, filter(None, (about.year, about.paper))))
    print(f"{name}{f' at {scale}' if scale else ''}: {about.apart} ({published})")
    print(gallery.picture(cfg))


def list_ideas() -> None:
    """List the ideas that are no model: their flags, what they cost, and what our ablations found.

    Parameters and time are relative to a small base without the idea. A difference is in bits per byte from a base of
    as many parameters, below 0 is better; it is inside the noise unless it says better or worse. `python
    experiments/ablate.py --ideas NAME` tries one on any base.
    """
    measured, rows = ideas.found(), []
    for name, idea in ideas.IDEAS.items():
        own = measured.get(name, [])
        cost = [f"x {max(float(row[column]) for row in own):.2f}" if own else MISSING
                for column in ("parameters", "time")]
        words = map(spelled_difference, own)
        flags = " ".join(f"{flag}={spell_value(value)}" for flag, value in idea.flags.items())
        rows.append((name, flags, *cost, ", ".join(words) or "not measured", idea.paper, idea.what))
    print_columns(("idea", "flag", "parameters", "time", "found", "paper", "what it does"), rows,
                  left=("idea", "flag", "found", "paper", "what it does"), fold=False)


def spelled_difference(row: Mapping[str, str]) -> str:
    """e.g. "tales-small -0.0312 better"; a verdict that is no test says itself."""
    where, verdict = row["ablation"].removeprefix("ideas-"), row["verdict"]
    told = f"{where} {float(row['difference']):+.3f}"
    return told if verdict == "inside the noise" else f"{told} {verdict}"


def sized(name: str, scale: str | None, *, skip: bool = False) -> Config | None:
    """A preset, at a scale if one is given; with `skip`, None if it has no such size."""
    cfg = load_preset(name)
    try:
        return at_scale(cfg, scale) if scale else cfg
    except ValueError:
        if skip:
            return None
        raise


def spelled(flag: str, values: Mapping[str, Any]) -> str:
    return spell_value(values[flag]) if flag in values else MISSING
