"""Parse the command line of every program; a mistake is one sentence on stderr."""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial, wraps
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

from configuration import garbage
from configuration.flag_parser import read_flags
from configuration.mistakes import nearest
from configuration.tree import override

# control characters other than the end of a line and the tab, what reverses the order of a text, lone surrogates
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_flags(flags: Sequence[str], default: Any, prog: str, description: str) -> Any:
    """Apply `--section.flag value ...` to a dataclass; --help prints help and exits.

    Raises ValueError with the mistake in one sentence.
    """
    require_utf8(flags)
    if {"-h", "--help"} & set(flags):
        from configuration.flag_help import help_text  # which needs this file

        with quiet_end():
            print(help_text(default, prog, description))
        raise SystemExit(0)
    return override(default, read_flags(flags, type(default)))


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """Inside, a reader that closes the pipe, as `| head` does, ends the program without a word."""
    if not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        sys.stdout.flush()
        signal.signal(signal.SIGPIPE, before)


def parse_words(words: Sequence[str], kind: type, prog: str) -> Any:
    """Make a dataclass of this kind from its flags. Raises ValueError with the mistake in one sentence."""
    import tyro  # 0.03 s and more, which programs that use `parse_flags` need not wait for

    require_utf8(words)
    return _parse(spell_booleans(words, boolean_flags(kind)), partial(tyro.cli, kind, prog=prog))


def parse_command(
    words: Sequence[str], commands: Mapping[str, Callable[..., None]], prog: str, description: str,
) -> Callable[[], None]:
    """The command that the first word names, with the arguments that follow bound to it.

    Raises ValueError with the mistake in one sentence.
    """
    import tyro

    require_utf8(words)
    if words and words[0] in commands:
        words = spell_booleans(words, boolean_flags(commands[words[0]]))
    elif words and not words[0].startswith("-"):
        raise ValueError(f"{words[0]} is not a command: use one of {', '.join(commands)}"
                         f"{nearest(words[0], list(commands))}")
    later = {name: _later(command) for name, command in commands.items()}
    return _parse(words, partial(tyro.extras.subcommand_cli_from_dict, later, prog=prog, description=description))


def run_command(
    words: Sequence[str], commands: Mapping[str, Callable[..., None]], prog: str, description: str,
) -> None:
    """Run the command that the first word names; a user's mistake prints its sentence and exits 2, Ctrl-C exits 130."""
    try:
        command = parse_command(words, commands, prog, description)
        garbage.begin()
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` closed the pipe; the rest must not be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def require_utf8(words: Sequence[str]) -> None:
    """Raise ValueError if a word of the command line is not UTF-8: Python keeps such bytes as lone surrogates."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            shown = word.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise ValueError(f"'{shown}' is not UTF-8: type it as UTF-8, or rename the file that is called so")


def boolean_flags(kind: Any, prefix: str = "--") -> Iterator[str]:
    """The boolean flags of a dataclass or a function, as they are typed: --model.norm-bias."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        flag = prefix + name.replace("_", "-")
        if bare is bool:
            yield flag
        elif is_dataclass(bare):
            yield from boolean_flags(bare, f"{flag}." if bare is hint else prefix)  # annotated: its name is left out


def spell_booleans(words: Sequence[str], flags: Iterator[str]) -> list[str]:
    """Replace `--flag true|false` by `--flag` or `--no-flag`, as tyro reads it. Raises ValueError for other values."""
    known, spelled, rest = set(flags), [], list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag.replace("_", "-") not in known:
            spelled.append(flag + equals + value)
            continue
        if not equals:
            value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{flag}={value} is wrong: use true or false")
        section, dot, name = flag.removeprefix("--").rpartition(".")
        spelled.append(f"--{section}{dot}{'' if value.lower() == 'true' else 'no-'}{name}")
    return spelled


def fail(error: Exception | str) -> NoReturn:
    """Print an error on stderr and exit with status 2."""
    if isinstance(error, OSError):
        error = f"{error.filename or 'the disk'} cannot be read or written: {error.strerror or error}"
    complain(f"error: {error}")
    raise SystemExit(2)


def is_first_process() -> bool:
    """Whether this is the process that prints, of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def complain(sentence: object, *, first: bool = True) -> None:
    """Print a sentence on stderr, without the middle of words that fill a screen; of torchrun's the `first` process.

    Not `first`: whichever it is.
    """
    if is_first_process() or not first:
        print(re.sub(r"(\S{100})\S{300,}(\S{20})", r"\1...\2", printable(str(sentence))), file=sys.stderr)


def warn(sentence: str) -> None:
    """Print a warning on stderr; the program goes on."""
    complain(f"warning: {sentence}")


def printable(text: str) -> str:
    """A text with its control characters spelled out, so that it cannot change the terminal it is shown on."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def literal(value: Any) -> Any:
    """A cell of a CSV that no spreadsheet takes for a formula: what begins like one gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def print_line(console: Any, sentence: str | None) -> None:
    """Print a sentence, if there is one, on a rich console: as it is, on one line, without control characters."""
    if sentence:
        console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)


def spell_bytes(number: float) -> str:
    """A size for people: 812 MB, 2.31 GB."""
    return f"{number / 1e6:,.0f} MB" if number < 1e9 else f"{number / 1e9:,.2f} GB"


def spell_value(value: Any, between: str = " ") -> str:
    """A flag's value as it is typed; () for an empty list."""
    if isinstance(value, list | tuple):
        return between.join(map(spell_value, value)) or "()"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Bind the arguments without calling the command, so that its errors are not taken for tyro's."""
    @wraps(command)
    def bind(*args, **kwargs):
        return partial(command, *args, **kwargs)

    return bind


def _parse(words: Sequence[str], parse: Callable[..., Any]) -> Any:
    """Call `parse` on the words; raise ValueError with a mistake in one sentence."""
    if {"-h", "--help"} & set(words):
        return parse(args=words)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return parse(args=words)
    except SystemExit:
        raise ValueError(_mistake(printed.getvalue())) from None


def _mistake(box: str) -> str:
    """The sentence inside tyro's error box, without the box and pydantic's additions."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()]
    # a title, the mistake and hints, separated by rules whose dashes depend on the terminal's encoding
    _, wrong, *hints = (" ".join(part.split()) for part in re.split("─{8,}|-{8,}", " ".join(lines)))
    if checked := re.search(r"Error parsing (\w+): .*?Value error, (.*?) \[type=", wrong):
        return f"{checked[1]}.{checked[2]}"
    if wrong.startswith("Missing from "):
        return "; ".join([hint for hint in hints if hint.startswith("Unrecognized")] + [_missing(box)])
    wrong = re.sub(r": invalid literal for int\(\) with base 10: (.*)", r"=\1 is wrong: use a whole number", wrong)
    wrong = re.sub(r": could not convert string to float: (.*)", r"=\1 is wrong: use a number", wrong)
    wrong = re.sub(r": no type matching (\S+) could be instantiated from \[(.*?)\]\..*", r"=\2 is wrong: use \1", wrong)
    if meant := re.search(r"Perhaps you meant: (--[\w.-]+)", " ".join(hints)):
        wrong += f"; perhaps {meant[1]} was meant"
    for hint in hints:
        if hint.startswith("Available subcommands: "):
            wrong += hint.replace("Available subcommands: ", "; use one of ")
    return wrong.removeprefix("Error parsing ")


def _missing(box: str) -> str:
    """The arguments that are missing: in tyro's box, the names that have help below them."""
    names = re.findall(r"^[│ ] {5}(\S+).*\n[│ ] {9}\S", box, re.MULTILINE)
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
