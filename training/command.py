"""The command line of train.py, read without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import Config, load_config
from presets import parse_command_line
from run_store.listing import MODELS, find_run

OPTIONS = {"resume": "RUN: continue a saved run from its newest checkpoint; its configuration is kept, except "
                     "--train.steps and a few more flags"}
SWITCHES = {"force": "begin even if the run is predicted not to fit into memory"}


def parse(words: Sequence[str], models: Path = MODELS) -> tuple[Config, dict[str, Any]]:
    """Return the configuration and the options. Help, and mistakes in one sentence on stderr, exit."""
    def base(options: Mapping[str, str | None]) -> Config:
        """The configuration that the flags change: with --resume the run's, else the defaults."""
        run = options["resume"]
        if run is None:
            return Config()
        if options["preset"] or options["config"]:
            raise ValueError(f"--resume {run} keeps the run's configuration: leave out the preset and --config")
        return load_config(find_run(run, models) / "config.json")

    return parse_command_line(words, program="python train.py", description="Train a model on text.", options=OPTIONS,
                              switches=SWITCHES, base=base)
