"""The command line of memory.py, read without torch."""

from collections.abc import Sequence
from typing import NamedTuple

from config import Config, parse_bytes
from configuration.command_line import fail
from presets import parse_command_line

OPTIONS = {
    "limit": "SIZE: how much the process may take, e.g. 2GB; prints whether the run fits, what would make it fit, and "
             "the largest batch and width that fit",
    "device": "cpu or cuda: the device of the run, which this machine need not have; default cpu",
    "processes": "N: what each of N processes takes that train the run together",
}


class Command(NamedTuple):
    """What the command line asks for."""

    cfg: Config
    limit: int | None  # bytes
    device: str
    processes: int


def parse(words: Sequence[str]) -> Command:
    """Read the words. Help, and mistakes in one sentence, exit."""
    cfg, options = parse_command_line(words, program="python memory.py",
                                      description="Predict the memory of a training run.", options=OPTIONS)
    device, limit = options["device"] or "cpu", options["limit"] and parse_bytes(options["limit"])
    if device not in ("cpu", "cuda"):
        fail(f"--device {device} is not known: use cpu or cuda")
    if limit == 0:
        fail(f"--limit {options['limit']} is not a size: use e.g. 800MB or 2GB")
    if not (processes := options["processes"] or "1").isdecimal() or int(processes) == 0:
        fail(f"--processes {processes} is not a number of processes: use e.g. 8")
    return Command(cfg, limit, device, int(processes))
