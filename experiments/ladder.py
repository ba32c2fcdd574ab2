"""From a bigram table to a small GPT in twelve rungs: `python experiments/ladder.py`.

Each rung changes one thing of the one below it, and all learn from the same number of tokens of one text. Each rung is
a saved run; after an interruption, repeat the command to continue. Results: experiments/results/NAME/.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

import os
from collections.abc import Sequence
from dataclasses import field
from functools import partial

from pydantic.dataclasses import dataclass
from rich.console import Console

from config import CHECKED, Config, DataConfig, replace
from configuration.checks import require_folder_name, require_positive
from configuration.command_line import parse_flags
from experiments.common.program import EarlyFlags, one_sentence
from experiments.rungs.definitions import NUM_STORIES, RUNGS
from presets import LADDER_TOKENS
from run_store.listing import RESULTS

HELD_OUT_BYTES = 150_000  # of a long text, so that validation does not take longer than training


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LadderCommand:
    """Which rungs to train, and on what text."""

    tokens: int = LADDER_TOKENS  # training tokens of each rung
    jobs: int = os.cpu_count() or 1  # runs at a time, one thread each
    seeds: int = 1  # runs of each rung; with 3 the report can tell a difference from chance
    only: tuple[int, ...] = ()  # numbers of the rungs to train; none given = all
    name: str | None = None  # of the results and the runs; None = ladder, and the text's name unless it is tales
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
        require_positive(self, "tokens", "jobs", "seeds")
        require_folder_name("name", self.name)
        if unknown := [number for number in self.only if not 1 <= number <= len(RUNGS)]:
            raise ValueError(f"only={unknown[0]} is not a rung: use numbers from 1 to {len(RUNGS)}")

    def configs(self) -> list[Config]:
        """The runs to train, the longest first, so that no core idles at the end."""
        rungs = [rung for rung in reversed(RUNGS) if rung.number in self.only or not self.only]
        data = with_short_validation(self.data)
        return [rung.config(ladder=self.ladder, tokens=self.tokens, seed=seed, data=data)
                for seed in range(self.seeds) for rung in rungs]


def with_short_validation(data: DataConfig) -> DataConfig:
    """The same text with at most HELD_OUT_BYTES for validation, if its size is known."""
    if data.val_name or data.name == ("tales",):
        return data
    from corpora.tables import files_of

    size = sum(path.stat().st_size for name in data.name for path in files_of(name))
    return replace(data, val_ratio=min(data.val_ratio, HELD_OUT_BYTES / size)) if size else data


def parse(words: Sequence[str]) -> LadderCommand:
    """Read the command line. Raises ValueError with the mistake in one sentence."""
    own = EarlyFlags()
    own.add_argument("--data.name", nargs="+", dest="name", default=["tales"])
    tales = "tales" in own.parse_known_args(words)[0].name
    default = LadderCommand(data=DataConfig(num_stories=NUM_STORIES) if tales else DataConfig())
    return parse_flags(words, default, "python experiments/ladder.py", __doc__)


def climb(command: LadderCommand, console: Console) -> None:
    """Train the rungs that are not finished, and report on all that are.

    Raises ValueError and Stopped as `train_all` and `rung_results` do.
    """
    from configuration.command_line import print_line
    from corpora.locks import alone  # torch and matplotlib take seconds
    from experiments.processes.training_runs import train_all
    from experiments.rungs import ladder_report, staircase
    from run_store.listing import shown

    say, configs, logs = partial(print_line, console), command.configs(), command.folder / "logs"
    say(f"{len(configs)} runs of {command.tokens:,} tokens of {' '.join(command.data.name)}, {command.jobs} at a time; "
        f"their output: {shown(logs)}")
    with alone(command.folder, command.ladder):
        train_all(configs, jobs=command.jobs, folder=logs,
                  on_end=lambda run: say(f"{run.name}: {staircase.end_of(run)}"))
    results = staircase.rung_results(command.ladder)
    ladder_report.write_report(results, command.folder)
    for result in results:
        say(f"{result.rung.number:2} {result.rung.title}, {result.mean.mean:.3f} bits per byte. "
            f"{result.verdict()}".rstrip())
    if min(len(result.runs) for result in results) == 1:
        say(ladder_report.ONE_SEED)
    say(f"staircase and report: {shown(command.folder)}")


def main() -> None:
    with one_sentence():
        climb(parse(sys.argv[1:]), Console())


if __name__ == "__main__":
    main()
