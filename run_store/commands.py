"""Saved runs: list them, show one, remove some, prune checkpoints and leftovers, import and export models."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from csv import DictWriter
from dataclasses import asdict, fields
from datetime import datetime
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from configuration.columns import print_columns
from configuration.command_line import literal, printable, run_command
from run_store.listing import MODELS, RunSummary, is_run, list_names, run_folders, summarize_run
from run_store.lock import locked
from run_store.pruning import Removal, find_removable

Column = Literal["name", "when", "state", "parameters", "data", "step", "tokens", "best", "last", "size"]
HEADINGS = get_args(Column)
LONGEST_DATA = 32  # characters of a text's name in the table
LEFT = ("name", "when", "state", "data")  # the other columns are numbers
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


# ---- list ----


def list_runs(
    names: Names = (), *, sort: Column = "when", reverse: bool = False, json: bool = False, csv: bool = False,
) -> None:
    """List the runs: state, size, best and last validation loss in bits per byte.

    Args:
        names: names or patterns such as 'tiny-*'; none = all.
        sort: the column to sort by, smallest or oldest first, unknown last.
        reverse: largest or newest first.
        json: as JSON, with unrounded numbers: seconds since 1970, bytes.
        csv: the same as CSV.
    """
    if json and csv:
        raise ValueError("--json and --csv are two formats: use one of them")
    summaries = []
    for path in selected_runs(names):
        with suppress(FileNotFoundError):  # removed meanwhile
            summaries.append(summarize_run(path))
    known = [summary for summary in summaries if sort_key(summary, sort) is not None]
    unknown = [summary for summary in summaries if sort_key(summary, sort) is None]
    summaries = sorted(known, key=lambda summary: sort_key(summary, sort), reverse=reverse) + unknown
    show = print_json if json else print_csv if csv else print_table
    show(summaries)


def sort_key(summary: RunSummary, column: Column) -> float | str | None:
    return summary.num_bytes if column == "size" else getattr(summary, column)


def print_table(summaries: Sequence[RunSummary]) -> None:
    """A table that fits the terminal; elsewhere one line per run, columns separated by two spaces or more."""
    print_columns(HEADINGS, [cells(summary) for summary in summaries], left=LEFT)
    for summary in summaries:
        if summary.problem:
            print(printable(f"{summary.name} is broken: {summary.problem}"))
    if not summaries:
        print(f"no runs in {MODELS}")


def cells(summary: RunSummary) -> tuple[str, ...]:
    steps = "-" if summary.steps is None else f"{summary.steps:,}"
    return (printable(summary.name), f"{datetime.fromtimestamp(summary.when):%Y-%m-%d %H:%M}", summary.state,
            format_value(summary.parameters), short(printable(summary.data or "-")), f"{summary.step:,}/{steps}",
            format_value(summary.tokens), format_value(summary.best, summary.sign),
            format_value(summary.last, summary.sign),
            f"{summary.num_bytes / 1e6:,.1f} MB" if summary.num_bytes >= 1e5 else f"{summary.num_bytes / 1e3:,.0f} kB")


def short(data: str) -> str:
    """The name of a text: of files without their folders, and its end if it is long."""
    names = " ".join(Path(word).name if word.startswith(("/", ".", "~")) else word for word in data.split())
    return names if len(names) <= LONGEST_DATA else f"...{names[3 - LONGEST_DATA:]}"


def format_value(number: float | None, sign: str = "") -> str:
    if number is None:
        return "-"
    return f"{sign}{number:.4f}" if isinstance(number, float) else f"{number:,}"


def print_json(summaries: Sequence[RunSummary]) -> None:
    print(dumps([asdict(summary) for summary in summaries], indent=1))


def print_csv(summaries: Sequence[RunSummary]) -> None:
    writer = DictWriter(sys.stdout, [field.name for field in fields(RunSummary)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: literal(value) for name, value in asdict(summary).items()} for summary in summaries)


# ---- show ----


def show(name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]) -> None:
    """Show a run: its flags, progress, checkpoints and newest samples.

    Args:
        name: the run's name or path.
    """
    from run_store.details import describe_run  # which reads all presets; the other commands do not need them

    path = Path(name) if is_run(Path(name)) else one_run(name)
    print(printable(describe_run(path)))


# ---- rm and prune ----


def rm(names: Names, *, yes: bool = False) -> None:
    """Remove runs, each whole or not at all.

    Args:
        names: names or patterns such as 'try-*'.
        yes: do not ask.
    """
    if not names:
        raise ValueError("NAME is missing: name the runs to remove")
    paths = selected_runs(names)
    for path in paths:
        with locked(path):  # to refuse before asking
            pass
    confirm_and_remove([Removal(path, summarize_run(path).state, run=path) for path in paths], yes=yes)


def prune(names: Names = (), *, dry_run: bool = False, yes: bool = False) -> None:
    """Remove what can go without a loss, and print the bytes that this frees.

    Removes all checkpoints of finished runs but the best and the last, broken runs with neither a log nor a
    checkpoint, and folders whose creation or deletion was interrupted.

    Args:
        names: names or patterns of the runs to prune; none = all.
        dry_run: only print what would be removed.
        yes: do not ask.
    """
    found = list(find_removable(MODELS, [path.name for path in selected_runs(names)] if names else ()))
    confirm_and_remove(found, yes=yes, dry_run=dry_run)


def confirm_and_remove(removals: Sequence[Removal], *, yes: bool, dry_run: bool = False) -> None:
    """Print what is to be removed, ask, and remove it."""
    sizes = [removal.num_bytes for removal in removals]
    for removal, size in zip(removals, sizes, strict=True):
        print(printable(f"{removal.path}  {size:,} bytes  ({removal.why})"))
    total = f"{sum(sizes):,} bytes"
    if not removals:
        print("there is nothing to remove")
    elif dry_run:
        print(f"{total} would be freed")
    elif not (yes or ask_user(f"remove {len(removals)}, {total}?")):
        print("nothing is removed")
    else:
        _delete(removals)
        print(f"removed {len(removals)}, {total}")


def _delete(removals: Sequence[Removal]) -> None:
    for removal in removals:
        removal.delete()


def ask_user(question: str) -> bool:
    """Ask at the terminal. Raises ValueError if there is none."""
    if not sys.stdin.isatty():
        raise ValueError("there is no terminal to ask at: use --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


# ---- names ----


def selected_runs(names: Sequence[str]) -> list[Path]:
    """The folders of the runs that match names, paths and patterns; all runs if none are given."""
    found = [path for name in names for path in matching_runs(name)] if names else run_folders(MODELS)
    return list(dict.fromkeys(found))


def matching_runs(name: str) -> list[Path]:
    """The runs in models/ that match a name, path or pattern. Raises ValueError if none does."""
    path = Path(name).absolute()
    if path.parent.resolve() == MODELS.resolve():
        name = path.name  # a link means itself, not its target
    if set(name) & set("*?["):
        if found := run_folders(MODELS, [name]):
            return found
    elif Path(name).name == name and not name.startswith(".") and is_run(MODELS / name):
        return [MODELS / name]
    there = list_names([path.name for path in run_folders(MODELS)], name)
    raise ValueError(f"{name} is not a run in {MODELS}; there are {there}")


def one_run(name: str) -> Path:
    """The run of a name, path or pattern. Raises ValueError if it matches none, or several."""
    found = matching_runs(name)
    if len(found) > 1:
        raise ValueError(f"{name} means {len(found)} runs ({', '.join(path.name for path in found)}): name one")
    return found[0]


def main(more: Mapping[str, Callable[..., None]] | None = None) -> None:
    """Run the subcommand of the command line, or one of `more`."""
    commands = {"list": list_runs, "show": show, "rm": rm, "prune": prune} | dict(more or {})
    run_command(sys.argv[1:], commands, "runs.py", __doc__)
