"""Do rates transfer? `python experiments/coordinate_check.py [preset] --scalings standard mup --widths 64 128 256 512`.

Trains the same architecture at several widths, and depths, on the same batches for a few steps, and prints how the
numbers in it change with the size: the output of each block, attention's scores, the logits, and the change of the
matrices; a slope near 0 against the logarithm of the width is what model.scaling is for. The architecture is that of
experiments/bases/coordinate_check.yaml, of --config FILE or of a preset, with flags as for train.py. Results:
experiments/results/NAME/
"""

import sys
from pathlib import Path

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

from collections.abc import Sequence
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from config import CHECKED, Config
from configuration.command_line import parse_flags
from experiments.common.bases import read_base
from experiments.common.program import one_sentence
from experiments.coordinates.check_options import CheckOptions

BASE = Path(__file__).resolve().parent / "bases" / "coordinate_check.yaml"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CheckCommand(CheckOptions):
    """The options, and the flags of the narrowest model."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str]) -> CheckCommand:
    """Read the command line. Raises ValueError with the mistake in one sentence."""
    base, rest, _ = read_base(words, default=BASE)
    program = "python experiments/coordinate_check.py [preset] [--config FILE]"
    return parse_flags(rest, CheckCommand(config=base), program, __doc__)


def main() -> None:
    with one_sentence(interrupted=""):
        command = parse(sys.argv[1:])
        from rich.console import Console

        from experiments.coordinates import check_report, measuring  # torch and pandas take seconds

        console = Console()
        for axis in command.axes:
            table = measuring.measure(command, command.config, axis, console)
            check_report.show(console, command, axis, table)


if __name__ == "__main__":
    main()
