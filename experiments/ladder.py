"""From a bigram table to a small GPT in twelve rungs: `python experiments/ladder.py`.

Each rung changes one thing of the one before it, and learns from as many tokens of the same text. They are saved runs,
trained in processes of their own; whatever ends the command, the same one goes on. Results: experiments/results/NAME/.
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from configuration.command_line import parse_or_exit
    from experiments.climbing.command import parse

    command = parse_or_exit(parse, sys.argv[1:], __doc__)

from rich.console import Console

from configuration.command_line import fail
from experiments.climbing.command import Command, parse
from experiments.climbing.report import ONE_SEED, write_report
from experiments.climbing.staircase import Step, climbed, last
from experiments.processes.signals import Stopped
from experiments.processes.training_runs import train_all
from runs import Run
from training.report import shown


def climb(command: Command, console: Console) -> list[Step]:
    """Train the rungs that are not finished, and write the report of all that are.

    Raises ValueError, and Stopped, as `train_all` and `climbed` do.
    """
    configs, logs = command.configs(), command.folder / "logs"
    console.print(f"{len(configs)} runs of {command.tokens:,} tokens of {' '.join(command.data.name)}, {command.jobs} "
                  f"at a time; what they say: {shown(logs)}", highlight=False, soft_wrap=True)

    def say(run: Run) -> None:
        console.print(f"{run.name}: {last(run, 'bits_per_byte'):.3f} bits/byte after {last(run, 'seconds'):,.0f} s",
                      highlight=False, soft_wrap=True)

    train_all(configs, jobs=command.jobs, folder=logs, on_end=say)
    steps = climbed(command.ladder)
    write_report(steps, command.folder)
    return steps


def main(command: Command | None = None) -> None:
    """Climb as the command line says, which may have been read already."""
    console = Console()
    try:
        command = command or parse(sys.argv[1:], __doc__)
        for step in (steps := climb(command, console)):
            console.print(f"{step.rung.number:2} {step.rung.title}, {step.mean.mean:.3f} bits per byte. "
                          f"{step.verdict()}".rstrip(), highlight=False, soft_wrap=True)
        if min(len(step.runs) for step in steps) == 1:
            console.print(ONE_SEED, highlight=False, soft_wrap=True)
        console.print(f"staircase and report: {shown(command.folder)}", highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        fail(error)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(stopped.exit_status) from None
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(command)
