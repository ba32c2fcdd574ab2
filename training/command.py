"""The command line of train.py, read without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import Config, load_config, override
from configuration.command_line import fail
from presets import parse_command_line
from run_store.listing import MODELS, find_run

OR_BEGIN = "resume-or-begin"
OPTIONS = {"resume": "RUN: continue a saved run from its newest checkpoint; its configuration is kept, except "
                     "--train.steps and a few more flags",
           OR_BEGIN: "NAME: continue the run of this name, which must have the flags of this command, or begin it if "
                     "there is none; the one line of a job that is started again",
           "seeds": "N: train N runs, one after the other, with the seeds train.seed, train.seed + 1, ..., called "
                    "NAME-seed-K; the same command goes on after an interruption"}
MAX_SEEDS = 1000
SWITCHES = {"force": "begin even if the run is predicted not to fit into memory"}


def parse(words: Sequence[str], models: Path = MODELS) -> tuple[Config, dict[str, Any]]:
    """Return the configuration and the options, "seeds" as a number. Help, and mistakes in one sentence, exit."""
    def base(options: Mapping[str, str | None]) -> Config:
        """The configuration that the flags change: with --resume the run's, else the defaults."""
        run = options["resume"]
        if run is None:
            return Config()
        if options["preset"] or options["config"] or options["scale"]:
            raise ValueError(f"--resume {run} keeps the run's configuration: leave out the preset, --scale and "
                             "--config")
        return load_config(find_run(run, models) / "config.json")

    cfg, options = parse_command_line(words, program="python train.py", description="Train a model on text.",
                                      options=OPTIONS, switches=SWITCHES, base=base)
    try:
        if options["seeds"] is not None:
            options["seeds"] = number_of_seeds(options, cfg)
        if options[OR_BEGIN] is not None:
            cfg = begun_or_not(options, cfg, models)
    except ValueError as error:
        fail(error)
    return cfg, options


def begun_or_not(options: dict[str, Any], cfg: Config, models: Path) -> Config:
    """The configuration with the name that --resume-or-begin gives; if that run is there, it is to be resumed."""
    name = options[OR_BEGIN]
    if other := next((other for other in ("resume", "seeds") if options[other] is not None), None):
        raise ValueError(f"--{OR_BEGIN} {name} and --{other} both say which run: leave one out")
    cfg = override(cfg, {"train.name": name})
    if (models / name / "config.json").is_file():
        options["resume"], saved = name, load_config(models / name / "config.json")
        if cfg.train.init_from:  # the run has begun, and the file may be gone
            cfg = override(cfg, {"train.init_from": saved.train.init_from})
    return cfg


def number_of_seeds(options: Mapping[str, Any], cfg: Config) -> int:
    """What --seeds asks for. Raises ValueError if it is not a number, or does not go with the other flags."""
    seeds = options["seeds"]
    if seeds not in map(str, range(1, MAX_SEEDS + 1)):
        raise ValueError(f"--seeds {seeds!r} is not a number of runs: use a whole number from 1 to {MAX_SEEDS:,}")
    if options["resume"] is not None:
        raise ValueError(f"--resume {options['resume']} goes on with one run: repeat the command with --seeds to go on "
                         "with all of them")
    if cfg.train.time_limit is not None:
        raise ValueError(f"train.time_limit={cfg.train.time_limit} with --seeds would end one run of several: leave it "
                         "out, stop the command at any time, and repeat it to go on")
    return int(seeds)
