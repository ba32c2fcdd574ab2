"""The command line of ablate.py, read without torch."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from config import CHECKED, Config, load_config, replace
from configuration.command_line import parse_flags
from experiments.ablating.options import Options
from experiments.ablating.variants import short_names, slug
from presets import load_preset


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Command(Options):
    """Options, and the flags of the base."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str], description: str = "") -> Command:
    """The command line. Raises ValueError with the mistake in one sentence."""
    words = list(words)
    preset = words.pop(0) if words and not words[0].startswith("-") else None
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--config", type=Path)
    try:
        known, rest = own.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    base = load_config(known.config) if known.config else Config()
    base = load_preset(preset, base) if preset else base
    program = "python experiments/ablate.py [preset] [--config FILE]"
    command = parse_flags(rest, Command(config=base), program, description)
    return replace(command, name=command.name or default_name(preset or (known.config and known.config.stem), command))


def default_name(base: str | None, options: Options) -> str:
    """What is varied on what, e.g. llama3-norm-mlp."""
    flags = [word.partition("=")[0] for words in (*options.vary, *options.also) for word in words.split()]
    return slug("-".join([base or "default", *short_names(flags).values()]))
