"""Have a language model judge what saved runs write, as in TinyStories (arXiv:2305.07759).

    python experiments/judge.py grade RUN [RUN ...] --judge-model NAME --stories 50
    python experiments/judge.py versus RUN RUN --judge-model NAME      # blind, each pair in both orders

All runs continue the same prompts. The judge is any endpoint that speaks OpenAI's chat completions: OPENAI_BASE_URL,
OPENAI_API_KEY. The cost is estimated before any request. Replies are kept: after an interruption, repeat the command
to continue. Results: experiments/results/judge-RUN.../
"""

import sys

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

from typing import Annotated

import tyro
from pydantic import ValidationError

from configuration.command_line import complain, fail, parse_command, printable
from configuration.mistakes import explain
from experiments.common.program import one_sentence
from experiments.judging.judge_options import JudgeOptions, Unreachable

Flags = Annotated[JudgeOptions, tyro.conf.arg(name="")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def grade(runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")], options: Flags) -> None:
    """Grade each run's texts: grammar, creativity, consistency, the age of the presumed author.

    Args:
        runs: names in models/, or paths.
    """
    from experiments.judging.judging import grade_runs

    print(printable(grade_runs(runs, options)))


def versus(run: Name, other: Name, options: Flags) -> None:
    """Compare two runs pair by pair, blind and in both orders.

    Args:
        run: a name in models/, or a path.
        other: another.
    """
    from experiments.judging.judging import versus_runs

    print(printable(versus_runs((run, other), options)))


def main() -> None:
    """Run a subcommand; exit with 2 after a mistake, 1 if the endpoint does not answer, 130 after Ctrl-C."""
    with one_sentence("stopped; what was judged is kept, and the same command goes on"):
        try:
            parse_command(sys.argv[1:], {"grade": grade, "versus": versus}, "python experiments/judge.py", __doc__)()
        except ValidationError as error:
            fail(explain(error))
        except Unreachable as error:
            complain(f"error: {error}\nwhat was judged is kept; the same command goes on")
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
