"""Search for a configuration: `python experiments/search.py --space experiments/spaces/small.yaml --ram-limit 2GB`.

The memory of each configuration is predicted first, and what would not fit is never started. Each trial is a saved run,
trained in a process of its own. Whatever ends a search, the same command goes on. Results: experiments/results/STUDY/.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

from collections.abc import Sequence
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass
from rich.console import Console

from config import CHECKED, Config
from configuration.command_line import parse_flags, print_line
from experiments.common.program import EarlyFlags, one_sentence
from experiments.searching.options import Options
from experiments.searching.space_file import load_space

DEFAULT_SPACE = Path(__file__).resolve().parent / "spaces" / "small.yaml"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Command(Options):
    """Options, and the flags of the configuration that the space changes."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str]) -> Command:
    """The command line. Raises ValueError with the mistake in one sentence."""
    own = EarlyFlags()
    own.add_argument("--space", type=Path, default=DEFAULT_SPACE)
    space = own.parse_known_args(words)[0].space
    default = Command(space=space, config=load_space(space).base)
    return parse_flags(words, default, "python experiments/search.py", __doc__)


def main() -> None:
    """Search as the command line says."""
    console = Console()
    with one_sentence():
        command = parse(sys.argv[1:])
        from experiments.searching.display import showing  # torch takes seconds
        from experiments.searching.loop import search
        from experiments.searching.report import write_report

        with showing(console, command) as show:
            study = search(command, command.config, on_change=show)
        print_line(console, str(write_report(study, command.folder)))


if __name__ == "__main__":
    main()
