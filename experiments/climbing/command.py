"""The command line of ladder.py, read without torch."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from config import CHECKED, Config, DataConfig, replace
from configuration.command_line import parse_flags
from corpora.tables import files_of
from experiments.climbing.rungs import NUM_STORIES, RUNGS
from presets import LADDER_TOKENS
from run_store.listing import RESULTS

HELD_OUT_BYTES = 150_000  # of a long text, so that measuring does not take longer than training


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Command:
    """What to climb, on what text."""

    tokens: int = LADDER_TOKENS  # that each rung learns from
    jobs: int = os.cpu_count() or 1  # runs side by side, one thread each
    seeds: int = 1  # runs of each rung; with 3 the report can tell a difference from chance
    only: tuple[int, ...] = ()  # rungs to train, by number; none given = all
    name: str | None = None  # of the results and the runs; None = ladder, with the text's name where it is not tales
    data: DataConfig = field(default_factory=DataConfig)

    @property
    def ladder(self) -> str:
        if self.name is not None:
            return self.name
        words = (Path(name).stem for name in self.data.name if name != "tales")
        return "-".join(["ladder", *("".join(c if c.isalnum() else "-" for c in word) for word in words)])

    @property
    def folder(self) -> Path:
        return RESULTS / self.ladder

    def __post_init__(self):
        for name in ("tokens", "jobs", "seeds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if unknown := [number for number in self.only if not 1 <= number <= len(RUNGS)]:
            raise ValueError(f"only={unknown[0]} is no rung: use numbers from 1 to {len(RUNGS)}")
        if not all(c.isalnum() or c in "._-" for c in self.ladder) or not self.ladder[:1].isalnum():
            raise ValueError(f"name={self.ladder!r} is no folder name: use letters, digits, '.', '_', '-'")

    def configs(self) -> list[Config]:
        """What to train, the longest first, so that no core waits at the end."""
        rungs = [rung for rung in reversed(RUNGS) if rung.number in self.only or not self.only]
        data = with_short_validation(self.data)
        return [rung.config(ladder=self.ladder, tokens=self.tokens, seed=seed, data=data)
                for seed in range(self.seeds) for rung in rungs]


def with_short_validation(data: DataConfig) -> DataConfig:
    """The same text, of which no more is held out than HELD_OUT_BYTES where its size is known."""
    if data.val_name or data.name == ("tales",):
        return data
    size = sum(path.stat().st_size for name in data.name for path in files_of(name))
    return replace(data, val_ratio=min(data.val_ratio, HELD_OUT_BYTES / size)) if size else data


def parse(words: Sequence[str], description: str = "") -> Command:
    """The command line. Raises ValueError with the mistake in one sentence."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--data.name", nargs="+", dest="name", default=["tales"])
    tales = "tales" in own.parse_known_args(words)[0].name
    default = Command(data=DataConfig(num_stories=NUM_STORIES) if tales else DataConfig())
    return parse_flags(words, default, "python experiments/ladder.py", description)
