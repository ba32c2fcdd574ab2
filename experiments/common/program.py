"""How a program of experiments/ speaks and ends: a mistake is a sentence and status 2, a signal 128 and its number."""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from configuration import garbage
from configuration.command_line import complain, fail, printable
from experiments.processes.signals import Stopped

PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*(?=@)|([?&]\w*(?:password|passwd|pwd)=)[^&\s]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """A text in which the passwords of URLs are ***."""
    return PASSWORD.sub(r"\1\2***", text)


class EarlyFlags(argparse.ArgumentParser):
    """Reads the flags on which the defaults of the others depend. Raises ValueError for a mistake."""

    def __init__(self):
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ').partition(':')[0]} needs a value")


def say(line: str) -> None:
    """Print a line at once; control characters are spelled out."""
    print(printable(line), flush=True)


@contextmanager
def one_sentence(interrupted: str = "stopped at once; the same command goes on") -> Iterator[None]:
    """Turn what a `with` block raises into a sentence on stderr and an exit status; `interrupted` is for Ctrl-C."""
    garbage.begin()
    try:
        yield
    except OSError as error:
        fail(error)
    except ValueError as error:
        fail(without_password(str(error)))
    except Stopped as stopped:
        complain(stopped)
        raise SystemExit(stopped.exit_status) from None
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        raise SystemExit(130) from None
