"""The command line of search.py, read without torch."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from config import CHECKED, Config
from configuration.command_line import parse_flags
from experiments.searching.options import Options
from experiments.searching.space_file import load_space

DEFAULT_SPACE = Path(__file__).resolve().parent.parent / "spaces" / "small.yaml"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Command(Options):
    """Options, and the flags of the configuration that the space changes."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str], description: str = "") -> Command:
    """The command line. Raises ValueError with the mistake in one sentence."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--space", type=Path, default=DEFAULT_SPACE)
    space = own.parse_known_args(words)[0].space
    default = Command(space=space, config=load_space(space).base)
    return parse_flags(words, default, "python experiments/search.py", description)
