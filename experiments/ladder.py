"""From a bigram table to a small GPT in twelve rungs: `python experiments/ladder.py`.

Each rung changes one thing of the one before it, and learns from as many tokens of the same text. They are saved runs,
trained in processes of their own; whatever ends the command, the same one goes on. Results: experiments/results/NAME/.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

import argparse
import os
from collections.abc import Sequence
from dataclasses import field

from pydantic.dataclasses import dataclass
from rich.console import Console

from config import CHECKED, Config, DataConfig, replace
from configuration.command_line import fail, parse_flags
from corpora.tables import files_of
from experiments.rungs.children import train_all
from experiments.rungs.definitions import NUM_STORIES, RUNGS
from experiments.rungs.ladder_report import ONE_SEED, write_report
from experiments.rungs.staircase import RungResult, last, rung_results
from experiments.searching.signals import Stopped
from presets import LADDER_TOKENS
from runs import RESULTS, Run
from training.report import shown

HELD_OUT_BYTES = 150_000  # of a long text, so that measuring does not take longer than training


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LadderCommand:
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


def parse(words: Sequence[str]) -> LadderCommand:
    """The command line. Raises ValueError with the mistake in one sentence."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--data.name", nargs="+", dest="name", default=["tales"])
    tales = "tales" in own.parse_known_args(words)[0].name
    default = LadderCommand(data=DataConfig(num_stories=NUM_STORIES) if tales else DataConfig())
    return parse_flags(words, default, "python experiments/ladder.py", __doc__)


def climb(command: LadderCommand, console: Console) -> list[RungResult]:
    """Train the rungs that are not finished, and write the report of all that are.

    Raises ValueError, and Stopped, as `train_all` and `rung_results` do.
    """
    configs, logs = command.configs(), command.folder / "logs"
    console.print(f"{len(configs)} runs of {command.tokens:,} tokens of {' '.join(command.data.name)}, {command.jobs} "
                  f"at a time; what they say: {shown(logs)}", highlight=False, soft_wrap=True)

    def say(run: Run) -> None:
        console.print(f"{run.name}: {last(run, 'bits_per_byte'):.3f} bits/byte after {last(run, 'seconds'):,.0f} s",
                      highlight=False, soft_wrap=True)

    train_all(configs, jobs=command.jobs, folder=logs, on_end=say)
    steps = rung_results(command.ladder)
    write_report(steps, command.folder)
    return steps


def main() -> None:
    console = Console()
    try:
        command = parse(sys.argv[1:])
        for step in (steps := climb(command, console)):
            console.print(f"{step.rung.number:2} {step.rung.title}, {step.mean.mean:.3f} bits per byte. "
                          f"{step.verdict()}".rstrip(), highlight=False, soft_wrap=True)
        if min(len(step.runs) for step in steps) == 1:
            console.print(ONE_SEED, highlight=False, soft_wrap=True)
        console.print(f"staircase and report: {shown(command.folder)}", highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        fail(error)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(stopped.exit_status) from None
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
