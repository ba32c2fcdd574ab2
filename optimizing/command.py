"""The command line of optim.py, read without torch."""

from collections.abc import Sequence
from pathlib import Path

from config import Config
from presets import parse_command_line


def parse(words: Sequence[str]) -> tuple[Config, Path]:
    """Return the configuration and the file of the drawing. Help, and mistakes in one sentence, exit."""
    cfg, options = parse_command_line(
        words, program="python optim.py", description="Draw the learning rate and the batch of every step.",
        options={"out": "PNG: the file to write; default schedule.png"})
    return cfg, Path(options["out"] or "schedule.png")
