"""The command line of train.py, read without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import Config, get, load_config, override
from configuration.command_line import fail
from presets import parse_command_line
from run_store.listing import MODELS, find_run

OR_BEGIN, TRANSFER = "resume-or-begin", "transfer-from"
TAKEN = {  # by --transfer-from
    "model": ("scaling", "base_dim", "base_layers", "init", "init_std", "out_init", "head_zero_init"),
    "train": ("optimizer", "lr", "embed_lr_mult", "head_lr_mult", "vector_lr_mult", "beta1", "beta2", "adam_eps",
              "momentum", "precondition_every", "weight_decay", "grad_clip", "schedule", "schedule_unit",
              "warmup_steps", "warmup_tokens", "min_lr_ratio", "flat_fraction", "num_cycles", "cycle_growth",
              "decay_fraction", "step_size", "step_unit", "step_gamma"),
}
ALWAYS_SAID = ("model.base_dim", "train.optimizer", "train.lr")
OPTIONS = {"resume": "RUN: continue a saved run from its newest checkpoint; its configuration is kept, except "
                     "--train.steps and a few more flags",
           OR_BEGIN: "NAME: continue the run of this name, which must have the flags of this command, or begin it if "
                     "there is none; the one line of a job that is started again",
           TRANSFER: "RUN: take the rates that were tuned on a narrower run, of model.scaling=mup or completep: its "
                     "optimizer, learning rates, decay, schedule, initialisation and scaling; flags still change them",
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
        if options[TRANSFER] is not None:
            raise ValueError(f"--resume {run} keeps the run's rates: leave out --{TRANSFER}")
        if options["preset"] or options["config"] or options["scale"]:
            raise ValueError(f"--resume {run} keeps the run's configuration: leave out the preset, --scale and "
                             "--config")
        return load_config(find_run(run, models) / "config.json")

    def change(cfg: Config, options: Mapping[str, str | None]) -> Config:
        """The configuration with the rates of the run of --transfer-from, if it is given."""
        return cfg if options[TRANSFER] is None else override(cfg, taken_from(options[TRANSFER], models)[1])

    cfg, options = parse_command_line(words, program="python train.py", description="Train a model on text.",
                                      options=OPTIONS, switches=SWITCHES, base=base, change=change)
    try:
        if options["seeds"] is not None:
            options["seeds"] = number_of_seeds(options, cfg)
        if options[OR_BEGIN] is not None:
            cfg = begun_or_not(options, cfg, models)
    except ValueError as error:
        fail(error)
    return cfg, options


def taken_from(name: str, models: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of the run of --transfer-from, and the flags that are taken from it.

    Raises ValueError if its rates do not transfer.
    """
    cfg = load_config(find_run(name, models) / "config.json")
    if cfg.model.scaling == "standard":
        raise ValueError(f"--{TRANSFER} {name}: it was trained with model.scaling=standard, whose rates are those of "
                         "its own width: tune a run with --model.scaling mup")
    return cfg, {f"{section}.{flag}": get(cfg, f"{section}.{flag}") for section in TAKEN for flag in TAKEN[section]}


def what_was_taken(name: str, cfg: Config, models: Path = MODELS) -> str:
    """A sentence on what a configuration has from the run of --transfer-from, besides defaults."""
    given, flags = taken_from(name, models)
    usual, narrow, wide = Config(), given.model, cfg.model
    taken = [f"{flag}={value}" for flag, value in flags.items()
             if get(cfg, flag) == value and (flag in ALWAYS_SAID or value != get(usual, flag))]
    warning = (f"; its {narrow.num_layers} layers are not the {wide.num_layers} here: only model.scaling=completep "
               "transfers between them") * (wide.scaling == "mup" and wide.num_layers != narrow.num_layers)
    return f"rates of {name}, {narrow.dim} wide, for a width of {wide.dim}: {' '.join(taken)}{warning}"


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
