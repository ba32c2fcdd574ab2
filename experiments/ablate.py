"""Does a change help? `python experiments/ablate.py llama3 --vary model.norm=rms,layer model.mlp=glu,mlp --seeds 3`.

Changes one flag at a time on a base: a preset, or --config FILE, with flags as for train.py. Each variant is sized to
match the base, trained on the same data in the same order with several seeds, and compared with the base by Welch's
test. Each run is a saved run; after an interruption, repeat the command to continue. Results: experiments/results/NAME/
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
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.variants import short_names, slug
from experiments.common.bases import read_base
from experiments.common.program import one_sentence, say


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AblateCommand(AblationOptions):
    """The options, and the flags of the base."""

    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(words: Sequence[str]) -> AblateCommand:
    """Read the command line. Raises ValueError with the mistake in one sentence."""
    base, rest, name = read_base(words)
    program = "python experiments/ablate.py [preset] [--config FILE]"
    command = parse_flags(rest, AblateCommand(config=base), program, __doc__)
    return replace(command, name=command.name or default_name(name, command))


def default_name(base: str | None, options: AblationOptions) -> str:
    """What is varied on what, e.g. llama3-norm-mlp."""
    flags = [word.partition("=")[0] for words in (*options.vary, *options.also) for word in words.split()]
    return slug("-".join([base or "default", *short_names(flags).values(), *options.ideas]))


def main() -> None:
    with one_sentence():
        command = parse(sys.argv[1:])
        from experiments.ablating import ablation_report, runner  # torch and pandas take seconds

        outcomes, stopped = runner.ablate(command, command.config, say)
        say(ablation_report.write_report(command, outcomes, sys.argv[1:]))
        if stopped:
            raise stopped
    if outcomes[0].failure:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
