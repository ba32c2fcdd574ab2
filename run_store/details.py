"""One run in words."""

import csv
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config import Config, to_dict
from presets import PRESETS, load_preset
from run_store.listing import Entry, num_bytes, read_config, read_entry, read_json, step_folders, step_of, whole_lines
from run_store.pruning import best_of, val_losses


def portrait(path: Path) -> str:
    """A run's state, the flags it changed, its log's end, checkpoints, machine and newest samples, as text."""
    entry = read_entry(path)
    parts = {"": heading(path, entry), "flags": flags(path), "last line of the log": log_end(path),
             "checkpoints": checkpoints(path), "made with": machine(path), "newest samples": samples(path)}
    return "\n\n".join(f"{title}\n{text}".lstrip("\n") for title, text in parts.items() if text)


def heading(path: Path, entry: Entry) -> str:
    steps = "?" if entry.steps is None else f"{entry.steps:,}"
    parts = [entry.parameters and f"{entry.parameters:,} parameters", entry.data and f"data {entry.data}",
             f"step {entry.step:,} of {steps}", entry.tokens and f"{entry.tokens:,} tokens",
             entry.best and f"bits per byte {entry.best:.4f} at best, {entry.last:.4f} at last"]
    lines = [f"{entry.name}: {entry.state}, last changed {datetime.fromtimestamp(entry.when):%Y-%m-%d %H:%M}, "
             f"{entry.num_bytes:,} bytes in {path}", ", ".join(part for part in parts if part)]
    return "\n".join(lines + ([f"broken: {entry.problem}"] if entry.problem else []))


# ---- flags ----


def flags(path: Path) -> str:
    """Those in which it differs from the nearest preset; in brackets what stands there."""
    try:
        config = read_config(path)
    except ValueError:
        return ""
    preset, changed = nearest_preset(config)
    return indented([(f"preset {preset}", "", ""), *((flag, spelled(value), f"({spelled(before)})")
                                                     for flag, (before, value) in changed.items())])


def nearest_preset(config: Config) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The preset that differs in the fewest flags, and these: {"model.dim": (the preset's, the run's)}."""
    changes = {preset: differences(load_preset(preset), config) for preset in PRESETS}
    preset = min(changes, key=lambda name: len(changes[name]))
    return preset, changes[preset]


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """The flags that differ, apart from the run's name."""
    old, new = to_dict(before), to_dict(after)
    return {f"{section}.{name}": (old[section][name], value) for section, values in new.items()
            for name, value in values.items() if value != old[section][name] and (section, name) != ("train", "name")}


def spelled(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


# ---- what happened ----


def log_end(path: Path) -> str:
    try:
        rows = list(csv.reader(whole_lines(path / "log.csv")))
    except (OSError, UnicodeDecodeError):
        return ""
    return indented([cell for cell in zip(rows[0], rows[-1], strict=False) if cell[1]]) if len(rows) > 1 else ""


def checkpoints(path: Path) -> str:
    """Each with the validation loss that decides which is the best."""
    folders = step_folders(path)
    try:
        losses = val_losses(folders)
    except ValueError as error:
        return f"  {error}"
    best, rows = best_of(losses), []
    for folder in folders:
        roles = [role for role, which in (("best", best), ("last", folders[-1])) if which == folder]
        loss = "" if losses[folder] is None else f"val loss {losses[folder]:.4f}"
        rows.append((f"step {step_of(folder):,}", loss, f"{num_bytes(folder):,} bytes", ", ".join(roles)))
    return indented(rows)


def machine(path: Path) -> str:
    """What environment.json and memory.json say."""
    rows = []
    for name in ("environment.json", "memory.json"):
        try:
            rows += [(key, f"{value:,}" if isinstance(value, int) else str(value))
                     for key, value in read_json(path / name).items() if value is not None]
        except ValueError:
            continue
    return indented(rows)


def samples(path: Path) -> str:
    """Those of the newest step."""
    try:
        found = [json.loads(line) for line in whole_lines(path / "samples.jsonl")]
    except (OSError, ValueError):
        return ""
    return "\n\n".join(sample["text"] for sample in found if sample["step"] == found[-1]["step"])


def indented(rows: Sequence[Sequence[str]]) -> str:
    """A line for each row, its cells below those of the row above."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
