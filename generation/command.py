"""The command line of inference.py, read without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from config import SampleConfig, load_config, override, replace
from configuration.command_line import fail, parse_flags
from configuration.objective_rules import check_sampling
from run_store.listing import MODELS, find_run, list_names, saved_names

PROGRAM = "inference.py RUN"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The words of the command line after RUN."""

    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = ()  # to continue
    sample: tyro.conf.OmitArgPrefixes[SampleConfig]
    checkpoint: str = "best"  # best, last, or the step of a checkpoint
    ema: bool = False  # use the moving average of the weights, for a run with train.ema_decay
    device: str = "auto"  # auto = cuda, else mps, else cpu
    suffix: str | None = None  # write what is between each prompt and this text: objective=fill_in_the_middle
    score: str | None = None  # score a text file (- = standard input) in place of generating


def parse(words: Sequence[str], description: str, models: Path = MODELS) -> tuple[Path, Options]:
    """Return the run's folder and the options. Help, and mistakes in one sentence on stderr, exit."""
    if not words or words[0].startswith("-"):
        if {"-h", "--help"} & set(words):
            parse_flags(["--help"], Options(sample=SampleConfig()), PROGRAM, description)
        fail(f"RUN is missing: name one of models/ ({list_names(saved_names(models))}), or give a path")
    run, *rest = words
    try:
        path = find_run(run, models)
        cfg = load_config(path / "config.json")
        options = parse_flags(rest, Options(sample=cfg.sample), PROGRAM, description)
        check_sampling(replace(cfg, sample=options.sample))
        if options.texts:
            options = override(options, {"sample.prompts": options.texts})
        return path, options
    except ValueError as error:
        fail(error)
