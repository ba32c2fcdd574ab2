"""How does the loss fall with size and tokens? `python experiments/scaling.py --config experiments/bases/scaling.yaml`.

Trains each size on each number of tokens, with a schedule of its own, fits loss = E + A / N^a + B / D^b, and says how
sure the fit is, which size is best for a budget, and what the runs do not tell. The base is a preset, or --config FILE,
with flags as for train.py. Each run is a saved run; after an interruption, repeat the command to continue. Results:
experiments/results/NAME/; `compare.py NAME OTHER` says how the gain of one over another depends on the size.
"""

import sys

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

from collections.abc import Sequence
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from config import CHECKED, Config, replace
from configuration.command_line import parse_flags
from experiments.common.bases import read_base
from experiments.common.program import one_sentence, say
from experiments.scaling_laws.scaling_options import ScalingOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ScalingCommand(ScalingOptions):
    """The options, and the flags of all runs."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str]) -> tuple[ScalingCommand, Config]:
    """Read the command line; the second result is the base before its flags. Raises ValueError."""
    base, rest, _ = read_base(words)
    program = "python experiments/scaling.py [preset] [--config FILE]"
    command = parse_flags(rest, ScalingCommand(config=base), program, __doc__)
    return replace(command, name=command.name or "scaling"), base


def main() -> None:
    with one_sentence():
        command, base = parse(sys.argv[1:])
        from experiments.scaling_laws import scaling_report, studying  # torch and pandas take seconds

        found, stopped = studying.study(command, command.config, base, say)
        say(scaling_report.write_report(command, found, sys.argv[1:]))
        if stopped:
            raise stopped
    if found.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
