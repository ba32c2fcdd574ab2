"""Does a change help? `python experiments/ablate.py llama3 --vary model.norm=rms,layer model.mlp=glu,mlp --seeds 3`.

Changes one flag at a time on a base: a preset, or --config FILE, with flags as for train.py. Each variant is sized to
match the base, trained on the same data in the same order, with several seeds, and told from the noise by Welch's test.
Each run is a saved run; whatever ends an ablation, the same command goes on. Results: experiments/results/NAME/.
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from configuration.command_line import parse_or_exit
    from experiments.ablating.command import parse

    command = parse_or_exit(parse, sys.argv[1:], __doc__)

from configuration.command_line import fail
from experiments.ablating.campaign import Interrupted, ablate
from experiments.ablating.command import Command, parse
from experiments.ablating.report import write_report
from experiments.processes.signals import Stopped


def main(command: Command | None = None) -> None:
    """Ablate as the command line says, which may have been read already."""
    try:
        command = command or parse(sys.argv[1:], __doc__)
        try:
            outcomes = ablate(command, command.config, lambda line: print(line, flush=True))
        except Interrupted as interrupted:
            print(write_report(command, interrupted.outcomes, sys.argv[1:]))
            raise
        print(write_report(command, outcomes, sys.argv[1:]))
    except (ValueError, OSError) as error:
        fail(error)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(stopped.exit_status) from None
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    if outcomes[0].failure:
        raise SystemExit(1)


if __name__ == "__main__":
    main(command)
