"""Groups runs into lines: runs that differ in their seed alone become one line with a band."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from config import FACTS, flat
from configuration.objectives import Facts
from experiments.comparing.sources import CurveSource
from runs import Run

T = TypeVar("T")
AXES = {"step": "steps", "tokens": "tokens", "bytes": "bytes of text", "seconds": "seconds", "flops": "FLOPs"}
COLUMNS = {  # labels of our columns; others have their own names as labels
    "bits_per_byte": "validation, bits per byte",
    "bits_over_floor": "validation, bits per byte over the floor",
    "train_bits_per_byte": "training, bits per byte",
    "val_loss": "validation loss, nats per token",
    "train_loss": "training loss, nats per token",
    "ema_val_loss": "validation loss of the averaged weights, nats per token",
    "perplexity": "validation perplexity per token",
    "accuracy": "validation, share of tokens that were the likeliest",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
    "tokens_per_second": "tokens per second",
}


@dataclass(frozen=True, eq=False)
class Line:
    """A run, or several that differ only in train.seed and train.name."""

    name: str
    members: tuple[CurveSource, ...]
    table: pd.DataFrame  # the mean over the members at their common steps, ascending
    low: pd.DataFrame | None  # 95 % interval of the mean by Student's t, at the same rows; None = one member
    high: pd.DataFrame | None

    @property
    def facts(self) -> Facts:
        """What its losses are, the same for all members; other people's logs count as exact."""
        run = self.members[0].run
        return FACTS["next_token"] if run is None else run.config.facts

    def has(self, column: str) -> bool:
        return column in self.table and bool(self.table[column].notna().any())


def lines(sources: Iterable[CurveSource]) -> list[Line]:
    """The lines, in the order of their first members; a foreign log is always a line of its own.

    So is a run that stopped earlier than the others of its configuration, because a mean would end with it. A repeated
    seed begins another line: the runs are copies, or the code changed, which says nothing about the noise.
    """
    groups: dict[tuple[str, int], list[CurveSource]] = {}
    of_seed: Counter[tuple[str, int]] = Counter()
    for source in sources:
        key, seed = _key(source), source.run and source.run.config.train.seed
        groups.setdefault((key, of_seed[key, seed]), []).append(source)
        of_seed[key, seed] += 1
    names = _names([[source.name for source in group] for group in groups.values()])
    return [_line(name, group) for name, group in zip(names, groups.values(), strict=True)]


def members(lines: Iterable[Line]) -> Iterator[CurveSource]:
    """The saved runs of all lines."""
    return (member for line in lines for member in line.members if member.run)


def try_each(
    lines: Iterable[Line], measure: Callable[[Run], T | None], complaint: str,
) -> tuple[dict[CurveSource, T], list[str]]:
    """A result for each saved run, and the `complaint` of its name and error for each ValueError."""
    found, problems = {}, []
    for source in members(lines):
        try:
            if (result := measure(source.run)) is not None:
                found[source] = result
        except ValueError as error:
            problems.append(complaint.format(source.name, error))
    return found, problems


def curve(source: CurveSource) -> pd.DataFrame:
    """A log's numbers by "step", with bytes and bits per byte if the tokenizer and the text are known."""
    table = source.table.select_dtypes("number").sort_values("step", ignore_index=True)
    if source.run is None:
        return table
    more, data = {}, source.run.data
    if "tokens" in table and data["train_tokens"] is not None:
        more["bytes"] = table["tokens"] * (data["train_bytes"] / data["train_tokens"])
    is_alike = source.run.config.facts.trains_as_evaluated
    if is_alike and "train_loss" in table and data["val_tokens_per_byte"] is not None:
        more["train_bits_per_byte"] = table["train_loss"] * data["val_tokens_per_byte"] / math.log(2)
    if "bits_per_byte" in table and data["floor_bits_per_byte"] is not None:
        more["bits_over_floor"] = table["bits_per_byte"] - data["floor_bits_per_byte"]
    return table.assign(**more)


def _key(source: CurveSource) -> str:
    """Equal for the members of a line."""
    if source.run is None:
        return f"{source.path} {source.name}"
    flags = flat(source.run.config) | {"train.seed": None, "train.name": None}
    return json.dumps([flags, source.run.data["fingerprint"], int(source.table["step"].max())])


def _line(name: str, members: Sequence[CurveSource]) -> Line:
    tables = [curve(member).set_index("step") for member in members]
    if len(tables) == 1:
        return Line(name, tuple(members), tables[0].reset_index(), None, None)
    steps, columns = tables[0].index, tables[0].columns
    for table in tables[1:]:
        steps, columns = steps.intersection(table.index), columns.intersection(table.columns, sort=False)
    values = np.stack([table.loc[steps, columns].to_numpy(float) for table in tables])
    mean = values.mean(0)
    half = values.std(0, ddof=1) / math.sqrt(len(values)) * stats.t.ppf(0.975, len(values) - 1)
    frames = (pd.DataFrame(part, steps, columns).reset_index() for part in (mean, mean - half, mean + half))
    return Line(name, tuple(members), *frames)


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """A name for each group of runs: the common start of their names, if no other line has it."""
    names = [group[0] if len(group) == 1 else _stem(group) for group in groups]
    return [name if name and names.count(name) == 1 else f"{group[0]} and {len(group) - 1} more" if len(group) > 1
            else name for name, group in zip(names, groups, strict=True)]


def _stem(names: Sequence[str]) -> str:
    """The words that all names begin with, without a last "seed": tiny-seed-0, tiny-seed-1 -> tiny."""
    common = "".join(os.path.commonprefix([re.split(r"([-_. ]+)", name) for name in names]))
    return re.sub(r"([-_. ]+(seed|s))?[-_. ]*$", "", common)
