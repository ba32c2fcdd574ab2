"""The description of a run: `python runs.py show`."""

import csv
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config import Config, diff
from configuration.reading import read_text
from presets import PRESETS, load_preset
from run_store.facts import as_sample
from run_store.listing import (
    DIVERGED,
    RunSummary,
    complete_lines,
    num_bytes,
    read_config,
    read_object,
    step_folders,
    step_of,
    summarize_run,
)
from run_store.pruning import lowest_loss, val_losses


def describe_run(path: Path) -> str:
    """State, changed flags, end of the log, checkpoints, machine and newest samples of a run, as text."""
    summary = summarize_run(path)
    parts = {"": heading(path, summary), "flags": flags(path), "last line of the log": last_log_line(path),
             "checkpoints": checkpoints(path), "made with": machine(path), "newest samples": samples(path)}
    return "\n\n".join(f"{title}\n{text}".lstrip("\n") for title, text in parts.items() if text)


def heading(path: Path, summary: RunSummary) -> str:
    steps = "?" if summary.steps is None else f"{summary.steps:,}"
    parts = [summary.parameters and f"{summary.parameters:,} parameters", summary.data and f"data {summary.data}",
             f"step {summary.step:,} of {steps}", summary.tokens and f"{summary.tokens:,} tokens",
             summary.best and f"bits per byte {summary.sign}{summary.best:.4f} at best, "
             f"{summary.sign}{summary.last:.4f} at last"]
    lines = [f"{summary.name}: {summary.state}, last changed {datetime.fromtimestamp(summary.when):%Y-%m-%d %H:%M}, "
             f"{summary.num_bytes:,} bytes in {path}", ", ".join(part for part in parts if part)]
    lines += [f"broken: {summary.problem}"] if summary.problem else []
    return "\n".join(lines + ([read_text(path / DIVERGED, 10_000).strip()] if summary.state == "diverged" else []))


# ---- flags ----


def flags(path: Path) -> str:
    """The flags in which it differs from the nearest preset, with the preset's values in brackets."""
    try:
        config = read_config(path)
    except ValueError:
        return ""
    preset, changed = nearest_preset(config)
    return align_columns([(f"preset {preset}", "", ""), *((flag, format_value(value), f"({format_value(before)})")
                                                     for flag, (before, value) in changed.items())])


def nearest_preset(config: Config) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The preset that differs in the fewest flags, and these flags: {"model.dim": (preset's value, run's value)}."""
    changes = {preset: differences(load_preset(preset), config) for preset in PRESETS}
    preset = min(changes, key=lambda name: len(changes[name]))
    return preset, changes[preset]


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """The flags that differ, except the run's name."""
    return {flag: pair for flag, pair in diff(before, after).items() if flag != "train.name"}


def format_value(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


# ---- progress ----


def last_log_line(path: Path) -> str:
    try:
        rows = csv.reader(complete_lines(path / "log.csv"))
        header, last = next(rows, []), deque(rows, maxlen=1)
    except (ValueError, csv.Error):
        return ""
    return align_columns([cell for cell in zip(header, last.pop(), strict=False) if cell[1]]) if last else ""


def checkpoints(path: Path) -> str:
    """Each checkpoint with the validation loss by which the best is chosen."""
    folders = step_folders(path)
    try:
        losses = val_losses(folders)
    except ValueError as error:
        return f"  {error}"
    best, rows = lowest_loss(losses), []
    for folder in folders:
        roles = [role for role, which in (("best", best), ("last", folders[-1])) if which == folder]
        loss = "" if losses[folder] is None else f"val loss {losses[folder]:.4f}"
        rows.append((f"step {step_of(folder):,}", loss, f"{num_bytes(folder):,} bytes", ", ".join(roles)))
    return align_columns(rows)


def machine(path: Path) -> str:
    """The contents of environment.json and memory.json."""
    rows = []
    for name in ("environment.json", "memory.json"):
        try:
            rows += [(key, f"{value:,}" if isinstance(value, int) else str(value))
                     for key, value in read_object(path / name).items() if value is not None]
        except ValueError:
            continue
    return align_columns(rows)


def samples(path: Path) -> str:
    """The samples of the newest step."""
    found = []
    try:
        for sample in map(as_sample, complete_lines(path / "samples.jsonl")):
            if found and found[-1]["step"] != sample["step"]:
                found.clear()
            found.append(sample)
    except ValueError:
        return ""
    return "\n\n".join(sample["text"] for sample in found)


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """One line per row, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
