"""What can a mixer do? `python experiments/probe.py --mixers attention latent --tasks mqar parity`.

Trains each mixer on synthetic tasks that need one ability each (recall, copying, state tracking, ...), with several
learning rates and seeds, on the base of experiments/bases/probe.yaml or --config FILE, with flags as for train.py.
Each run is a saved run; after an interruption, repeat the command to continue. Results: experiments/results/NAME/
"""

import sys
from pathlib import Path

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
from experiments.probing.probe_options import ProbeOptions

BASE = Path(__file__).resolve().parent / "bases" / "probe.yaml"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ProbeCommand(ProbeOptions):
    """The options, and the flags of all runs."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str]) -> tuple[ProbeCommand, Config]:
    """Read the command line; the second result is the base before its flags. Raises ValueError."""
    base, rest, _ = read_base(words, default=BASE, presets=False)
    command = parse_flags(rest, ProbeCommand(config=base), "python experiments/probe.py [--config FILE]", __doc__)
    return replace(command, name=command.name or "probe"), base


def main() -> None:
    with one_sentence():
        command, base = parse(sys.argv[1:])
        from experiments.probing import probe_report, probing  # torch and pandas take seconds

        outcomes, stopped = probing.probe(command, command.config, base, say)
        say(probe_report.write_report(command, outcomes, sys.argv[1:]))
        if stopped:
            raise stopped
    if any(found.failure for found in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
