"""The configuration from which a program of experiments/ begins: `[preset] [--config FILE]` before its own flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from config import Config, load_config
from experiments.common.program import EarlyFlags
from presets import load_preset


class Base(NamedTuple):
    """What a command line begins from."""

    cfg: Config
    words: list[str]  # of the command line, without those that name it
    name: str | None  # of the preset or the file, if one is given


def read_base(words: Sequence[str], *, default: Path | None = None, presets: bool = True) -> Base:
    """Read the preset, if the program takes presets, and the file; `default` is that of no file. Raises ValueError."""
    words = list(words)
    preset = words.pop(0) if presets and words and not words[0].startswith("-") else None
    own = EarlyFlags()
    own.add_argument("--config", type=Path)
    known, rest = own.parse_known_args(words)
    file = known.config or default
    base = load_config(file) if file else Config()
    return Base(load_preset(preset, base) if preset else base, rest, preset or (known.config and known.config.stem))
