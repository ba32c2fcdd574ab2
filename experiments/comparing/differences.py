"""The flags in which runs differ, and remarks on what cannot be compared."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from config import flat
from configuration.command_line import spell_value
from experiments.comparing.lines import Line, members
from experiments.comparing.sources import CurveSource

PER_TOKEN = ("val_loss", "train_loss", "ema_val_loss", "perplexity", "accuracy")  # depend on the tokenizer


def differences(lines: Sequence[Line]) -> pd.DataFrame:
    """A row for each flag in which the lines differ, except train.name, and a column for each line.

    A line of several runs has all their values. Foreign logs have no flags.
    """
    flags = {line.name: [flat(member.run.config) for member in members([line])] for line in lines}
    rows = {}
    for flag in dict.fromkeys(name for runs in flags.values() for run in runs for name in run if name != "train.name"):
        cells = {line: ", ".join(dict.fromkeys(spell_value(run[flag]) for run in runs)) for line, runs in flags.items()}
        if len({cell for line, cell in cells.items() if flags[line]}) > 1:
            rows[flag] = cells
    return pd.DataFrame.from_dict(rows, orient="index", columns=[line.name for line in lines])


@lru_cache(1000)
def _tokenizer(source: CurveSource) -> tuple[str, str]:
    """A description of its tokenizer, and the fingerprint."""
    tokenizer = source.run.tokenizer()
    return f"{tokenizer.kind}, {tokenizer.vocab_size:,} ids", tokenizer.fingerprint


def tokenizers(lines: Sequence[Line]) -> dict[str, list[str]]:
    """The lines that share a tokenizer, by its description; foreign logs are left out."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.members[0].run:
            found.setdefault(_tokenizer(line.members[0]), []).append(line.name)
    spoken = [said for said, _ in found]
    return {said if spoken.count(said) == 1 else f"{said}, {fingerprint[:8]}": names
            for (said, fingerprint), names in found.items()}


def val_texts(lines: Sequence[Line]) -> list[list[str]]:
    """Groups of lines that were validated on the same text."""
    found: dict[Any, list[str]] = {}
    for line in lines:
        if run := line.members[0].run:
            floor = run.data["floor_bits_per_byte"]  # of the validation text, and so identifies it
            text = run.data["fingerprint"] if floor is None else (run.data["val_bytes"], floor)
            found.setdefault(text, []).append(line.name)
    return list(found.values())


def common_floor(lines: Sequence[Line]) -> float | None:
    """The entropy of the text in bits per byte; None = unknown, or not the same for all runs."""
    floors = {member.run.data["floor_bits_per_byte"] for member in members(lines)}
    return floors.pop() if len(floors) == 1 else None


def remarks(lines: Sequence[Line]) -> list[str]:
    """A sentence on each obstacle to comparing the lines' numbers."""
    said, by_tokenizer, by_text = [], tokenizers(lines), val_texts(lines)
    if len(by_tokenizer) > 1:
        groups = "; ".join(f"{', '.join(names)}: {what}" for what, names in by_tokenizer.items())
        said.append(f"The tokenizers differ ({groups}): the runs are compared in bits per byte. Loss and perplexity "
                    "per token are left out; accuracy and speed are of each one's own tokens.")
    if len(by_text) > 1:
        groups = " and ".join(", ".join(names) for names in by_text)
        said.append(f"{groups} were validated on different texts: their curves do not compare, only what is measured "
                    "on the same text does, and only if none of them was trained on it.")
    if foreign := [line.name for line in lines if line.members[0].run is None]:
        said.append(f"There is only a log of {' and of '.join(foreign)}: its loss per token compares with the others' "
                    "if text and tokenizer are the same.")
    for member in members(lines):
        reached, asked = int(member.table["step"].max()), member.run.config.train.steps
        if reached < asked and "imported" not in member.run.data:
            said.append(f"{member.name} stopped at step {reached:,} of {asked:,}.")
    return said
