"""Saved runs: list them, show one, remove some, and prune what is left over."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from csv import DictWriter
from dataclasses import asdict, fields
from datetime import datetime
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from rich.console import Console
from rich.table import Table

from configuration.command_line import fail, parse_command
from run_store.details import portrait
from run_store.listing import MODELS, Entry, in_words, is_run, locked, read_entry, run_folders
from run_store.pruning import Removal, leftovers

Column = Literal["name", "when", "state", "parameters", "data", "step", "tokens", "best", "last", "size"]
HEADINGS = get_args(Column)
LEFT = ("name", "when", "state", "data")  # the other columns are numbers
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


# ---- list ----


def list_runs(
    names: Names = (), *, sort: Column = "when", reverse: bool = False, json: bool = False, csv: bool = False,
) -> None:
    """List the runs: state, size, and their best and last validation loss in bits per byte.

    Args:
        names: names or patterns such as 'tiny-*'; none = all.
        sort: the column to sort by, smallest and oldest first, unknown last.
        reverse: largest and newest first.
        json: as JSON, every number whole: seconds since 1970, bytes.
        csv: the same as CSV.
    """
    if json and csv:
        raise ValueError("--json and --csv are two formats: use one of them")
    entries = []
    for path in chosen(names):
        with suppress(FileNotFoundError):  # removed meanwhile
            entries.append(read_entry(path))
    known = [entry for entry in entries if sort_key(entry, sort) is not None]
    unknown = [entry for entry in entries if sort_key(entry, sort) is None]
    entries = sorted(known, key=lambda entry: sort_key(entry, sort), reverse=reverse) + unknown
    show = print_json if json else print_csv if csv else print_table
    show(entries)


def sort_key(entry: Entry, column: Column) -> float | str | None:
    return entry.num_bytes if column == "size" else getattr(entry, column)


def print_table(entries: Sequence[Entry]) -> None:
    """In a terminal as wide as it is; elsewhere a line for each run, its columns parted by two spaces or more."""
    rows = [cells(entry) for entry in entries]
    console = Console()
    if console.is_terminal:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading in LEFT else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)
    elif rows:
        widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
        for row in (HEADINGS, *rows):
            print("  ".join(cell.ljust(width) if heading in LEFT else cell.rjust(width)
                            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)))
    for entry in entries:
        if entry.problem:
            print(f"{entry.name} is broken: {entry.problem}")
    if not entries:
        print(f"no runs in {MODELS}")


def cells(entry: Entry) -> tuple[str, ...]:
    steps = "-" if entry.steps is None else f"{entry.steps:,}"
    return (entry.name, f"{datetime.fromtimestamp(entry.when):%Y-%m-%d %H:%M}", entry.state,
            spelled(entry.parameters), entry.data or "-", f"{entry.step:,}/{steps}", spelled(entry.tokens),
            spelled(entry.best), spelled(entry.last), f"{entry.num_bytes / 1e6:,.1f} MB")


def spelled(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.4f}" if isinstance(number, float) else f"{number:,}"


def print_json(entries: Sequence[Entry]) -> None:
    print(dumps([asdict(entry) for entry in entries], indent=1))


def print_csv(entries: Sequence[Entry]) -> None:
    writer = DictWriter(sys.stdout, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, entries))


# ---- show ----


def show(name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]) -> None:
    """Show a run: the flags it was made with, how far it came, its checkpoints and its newest samples.

    Args:
        name: the run's name or path.
    """
    path = Path(name) if is_run(Path(name)) else one_run(name)
    print(portrait(path))


# ---- rm and prune ----


def rm(names: Names, *, yes: bool = False) -> None:
    """Remove runs, each whole or not at all.

    Args:
        names: names or patterns such as 'try-*'.
        yes: do not ask.
    """
    if not names:
        raise ValueError("NAME is missing: name the runs to remove")
    paths = chosen(names)
    for path in paths:
        with locked(path):  # better said before anything is asked
            pass
    carry_out([Removal(path, read_entry(path).state, run=path) for path in paths], yes=yes)


def prune(names: Names = (), *, dry_run: bool = False, yes: bool = False) -> None:
    """Remove what can go without a loss, and say how many bytes that gives back.

    Of finished runs all checkpoints but the best and the last go; then broken runs that have neither a log nor a
    checkpoint, and folders that were never made, or deleted, completely.

    Args:
        names: names or patterns of the runs to prune; none = all.
        dry_run: only say what would go.
        yes: do not ask.
    """
    found = list(leftovers(MODELS, [path.name for path in chosen(names)] if names else ()))
    carry_out(found, yes=yes, dry_run=dry_run)


def carry_out(removals: Sequence[Removal], *, yes: bool, dry_run: bool = False) -> None:
    """Say what goes, ask, and delete it."""
    sizes = [removal.num_bytes for removal in removals]
    for removal, size in zip(removals, sizes, strict=True):
        print(f"{removal.path}  {size:,} bytes  ({removal.why})")
    if not removals:
        print("there is nothing to remove")
    elif dry_run:
        print(f"{sum(sizes):,} bytes would be given back")
    elif yes or agreed(f"remove {len(removals)}, {sum(sizes):,} bytes?"):
        for removal in removals:
            removal.carry_out()
        print(f"removed {len(removals)}, {sum(sizes):,} bytes")
    else:
        print("nothing is removed")


def agreed(question: str) -> bool:
    """Ask at the terminal. Raises ValueError where there is none."""
    if not sys.stdin.isatty():
        raise ValueError("nobody is there to be asked: use --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


# ---- names ----


def chosen(names: Sequence[str]) -> list[Path]:
    """The folders of the runs that names, paths and patterns mean; all where there are none of these."""
    found = [path for name in names for path in named(name)] if names else run_folders(MODELS)
    return list(dict.fromkeys(found))


def named(name: str) -> list[Path]:
    """Raises ValueError where no run in models/ is meant."""
    path = Path(name).absolute()
    if path.parent.resolve() == MODELS.resolve():
        name = path.name  # of a link, too: what it leads to is not meant
    if set(name) & set("*?["):
        if found := run_folders(MODELS, [name]):
            return found
    elif Path(name).name == name and not name.startswith(".") and is_run(MODELS / name):
        return [MODELS / name]
    there = in_words([path.name for path in run_folders(MODELS)], name)
    raise ValueError(f"{name} is no run in {MODELS}; there are {there}")


def one_run(name: str) -> Path:
    """Raises ValueError where the name means none, or several."""
    found = named(name)
    if len(found) > 1:
        raise ValueError(f"{name} means {len(found)} runs ({', '.join(path.name for path in found)}): name one")
    return found[0]


def main() -> None:
    """Run a subcommand; a user's mistake prints its sentence and exits 2, Ctrl-C exits 130."""
    try:
        parse_command(sys.argv[1:], {"list": list_runs, "show": show, "rm": rm, "prune": prune},
                      "runs.py", __doc__)()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; what is left must not be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
