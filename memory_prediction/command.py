"""The command line of memory.py, read without torch."""

from collections.abc import Sequence

from config import Config, parse_bytes
from configuration.command_line import fail
from presets import parse_command_line

OPTIONS = {
    "limit": "SIZE: how much the process may take, e.g. 2GB; prints whether the run fits, what would make it fit, and "
             "the largest batch and width that fit",
    "device": "cpu or cuda: the device of the run, which this machine need not have; default cpu",
}


def parse(words: Sequence[str]) -> tuple[Config, int | None, str]:
    """Return the configuration, the limit in bytes and the device. Help, and mistakes in one sentence, exit."""
    cfg, options = parse_command_line(words, program="python memory.py",
                                      description="Predict the memory of a training run.", options=OPTIONS)
    device, limit = options["device"] or "cpu", options["limit"] and parse_bytes(options["limit"])
    if device not in ("cpu", "cuda"):
        fail(f"--device {device} is not known: use cpu or cuda")
    if limit == 0:
        fail(f"--limit {options['limit']} is not a size: use e.g. 800MB or 2GB")
    return cfg, limit, device
