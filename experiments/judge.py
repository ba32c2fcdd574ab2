"""Have a language model judge what saved runs write, in the way of TinyStories (arXiv:2305.07759).

    python experiments/judge.py grade RUN [RUN ...] --judge-model NAME --stories 50
    python experiments/judge.py versus RUN RUN --judge-model NAME      # blind, each pair in both orders

The runs go on with the same beginnings. The judge is any endpoint that speaks OpenAI's chat completions:
OPENAI_BASE_URL, OPENAI_API_KEY. What it may cost is said before anything is asked. Replies are kept, so an interrupted
judging goes on where it stopped. Results: experiments/results/judge-RUN.../
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

from typing import Annotated

import tyro
from pydantic import ValidationError

from config import explain
from configuration.command_line import fail, parse_command
from experiments.judging.endpoint import Unreachable
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.judging import grade_runs, versus_runs

Flags = Annotated[JudgeOptions, tyro.conf.arg(name="")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def grade(runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")], options: Flags) -> None:
    """Have each run's texts graded: grammar, creativity, consistency, the age of who might have written them.

    Args:
        runs: names in models/, or paths.
    """
    print(grade_runs(runs, options))


def versus(run: Name, other: Name, options: Flags) -> None:
    """Have two runs compared, pair by pair, blind, and in both orders.

    Args:
        run: a name in models/, or a path.
        other: another.
    """
    print(versus_runs((run, other), options))


def main() -> None:
    """Run a subcommand; a user's mistake exits 2, an endpoint that gives no answer 1, Ctrl-C 130."""
    try:
        parse_command(sys.argv[1:], {"grade": grade, "versus": versus}, "python experiments/judge.py", __doc__)()
    except ValidationError as error:
        fail(explain(error))
    except (ValueError, OSError) as error:
        fail(error)
    except Unreachable as error:
        print(f"error: {error}\nwhat was judged is kept; the same command goes on", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped; what was judged is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
