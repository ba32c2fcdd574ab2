"""Search for a configuration: `python experiments/search.py --space experiments/spaces/small.yaml --ram-limit 2GB`.

The memory of each configuration is predicted first, and what would not fit is never started. Each trial is a saved run,
trained in a process of its own. Whatever ends a search, the same command goes on. Results: experiments/results/STUDY/.
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from configuration.command_line import parse_or_exit
    from experiments.searching.command import parse

    command = parse_or_exit(parse, sys.argv[1:], __doc__)

from rich.console import Console

from experiments.common.program import one_sentence
from experiments.searching.command import Command, parse
from experiments.searching.display import showing
from experiments.searching.loop import search
from experiments.searching.report import write_report


def main(command: Command | None = None) -> None:
    """Search as the command line says, which may have been read already."""
    console = Console()
    with one_sentence():
        command = command or parse(sys.argv[1:], __doc__)
        with showing(console, command) as show:
            study = search(command, command.config, on_change=show)
        console.print(str(write_report(study, command.folder)), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(command)
