"""The gallery: published architectures and a ladder up to them, as overrides of `Config`; and the command line.

    python presets.py                       list them
    python presets.py diff llama3 qwen3     the flags in which two differ
    python presets.py show gemma3           the layers of one
    python presets.py ideas                 single ideas, what they cost, and what ablations found

A preset sets every flag that its architecture depends on, whatever the defaults of config.py; sizes are the published
ones. `python train.py gpt2 --scale 1M` trains one at a size for a CPU.
"""

if __name__ == "__main__":
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()
    from showing.gallery_commands import main

    raise SystemExit(main())

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from config import Config, ModelConfig, flat, load_config, override
from configuration.command_line import fail, parse_flags
from configuration.mistakes import nearest
from configuration.plain import PLAIN_MODEL
from families import ENCODER_DECODERS, FAMILIES, characters, without_class
from families.family import ADAMW, EVERY_BIAS, About
from families.sizing import read_scale, scaled, tiny  # noqa: F401, tiny is imported from here

EVERY_FAMILY = (*FAMILIES.values(), *ENCODER_DECODERS.values())
PRESETS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    # config.py as it stands
    "default": {},
    # the built-in stories: config.py and a pointer, which copies names early in training. Without it models of this
    # size do not learn to repeat a name in a thousand steps
    "tales": {"model": {"pointer": True}},
    # a family in each file of families/
    **{name: flags for family in EVERY_FAMILY for name, flags in family.gallery().items()},
    **without_class.PRESETS,
    **characters.PRESETS,
    # Southern Cross AI's JoeyLLM at its smallest
    "babyjoey": {
        "model": PLAIN_MODEL | EVERY_BIAS | {
            "dim": 512, "num_layers": 1, "attention.num_heads": 8, "vocab_size": 50257, "max_seq_len": 512,
            "activation": "gelu", "position": "learned",
        },
        "data": {"name": "SouthernCrossAI/Tweets_cricket"},
        "train": ADAMW | {"lr": 1e-5, "weight_decay": 1e-3, "beta2": 0.999, "grad_clip": None, "batch_size": 2,
                          "schedule": "step", "step_size": 1, "step_unit": "epochs", "step_gamma": 0.9,
                          "min_lr_ratio": 0.0, "warmup_steps": 0},
    },
}


# the ladder, from a bigram table of characters to a small GPT: each rung adds one change to the rung before, and trains
# on as many tokens of the same text
LADDER: dict[str, Mapping[str, Mapping[str, Any]]] = {
    # no mixer, no MLP, no norm: the embedding goes straight to the head
    "ladder-01-bigram": {
        "model": PLAIN_MODEL | {
            "dim": 64, "num_layers": 1, "vocab_size": None, "max_seq_len": 64,
            "mixer": "none", "mlp": "none", "activation": "relu2", "position": "none", "residual": "none",
            "norm": "none", "norm_eps": 1e-6, "init": "fan_in", "init_std": 0.2, "out_init": "depth",
        },
        "tokenizer": {"kind": "char", "vocab_size": None},
        "train": ADAMW | {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "weight_decay": 0.0, "schedule": "linear",
                          "min_lr_ratio": 0.0, "batch_size": 1, "accumulation": 1, "precision": "float32"},
    },
    "ladder-02-batches": {"train": {"batch_size": 8}},
    "ladder-03-positions": {"model": {"position": "learned"}},
    "ladder-04-adam": {"train": {"optimizer": "adam", "lr": 4e-3}},
    "ladder-05-attention": {"model": {"mixer": "attention", "attention.num_heads": 1}},
    "ladder-06-heads": {"model": {"attention.num_heads": 4}},
    "ladder-07-feed-forward": {"model": {"mlp": "mlp", "activation": "relu"}},
    "ladder-08-blocks": {"model": {"num_layers": 4}},
    "ladder-09-residual": {"model": {"residual": "pre"}},
    "ladder-10-norm": {"model": {"norm": "layer"}},
    "ladder-11-dropout": {"model": {"residual_dropout": 0.1}},
    "ladder-12-scale": {"model": {"dim": 128, "attention.num_heads": 8, "max_seq_len": 128},
                        "train": {"batch_size": 4}},
}
LADDER_TOKENS = 4_096_000


def paced(batch_size: int, seq_len: int, tokens: int) -> dict[str, int]:
    """The flags of train for a run of `tokens` tokens with ten evaluations and samples at its end."""
    steps = max(1, tokens // (batch_size * seq_len))
    often = {"eval_every": max(1, steps // 10), "checkpoint_every": max(1, steps // 10)}
    return {"steps": steps, "log_every": max(1, steps // 100), "sample_every": steps, "eval_tokens": 10_000} | often


def _rungs() -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Each rung of the ladder, with the changes of all rungs below it."""
    flags: dict[str, dict[str, Any]] = {}
    rungs = {}
    for name, changes in LADDER.items():
        flags = {section: flags.get(section, {}) | changes.get(section, {}) for section in flags | changes}
        pace = paced(flags["train"]["batch_size"], flags["model"]["max_seq_len"], LADDER_TOKENS)
        rungs[name] = flags | {"train": flags["train"] | pace}
    return rungs


PRESETS |= _rungs()

# what `python presets.py` says of each: those of families/ stand in their files
ABOUT: dict[str, About] = {
    "default": About("config.py as it stands: rotary positions, QK-norm, relu^2, Muon", None, "this project"),
    "tales": About("the defaults and a pointer, which copies names from early on", None, "this project"),
    **{name: about for family in EVERY_FAMILY for name, about in family.about.items()},
    **without_class.ABOUT,
    **characters.ABOUT,
    "babyjoey": About("JoeyLLM at its smallest, on tweets", None, "Southern Cross AI"),
    **{name: About(" ".join(f"{flag}={value}" for flag, value in flat(changes).items()), None, "this project")
       for name, changes in list(LADDER.items())[1:]},
    "ladder-01-bigram": About("a table of characters, up which each rung adds one change", None, "this project"),
}

SHORT = ("--init-from", "--allow-partial", "--time-limit", "--memory-limit")  # flags of train that need no section


def load_preset(name: str, base: Config | None = None) -> Config:
    """The configuration of a preset: its overrides on `base`, or on the defaults.

    Raises ValueError with the names of the presets if `name` is not one of them.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is not known: use one of {', '.join(PRESETS)}{nearest(name, list(PRESETS))}")
    return override(base, PRESETS[name]) if base else _loaded(name)


@cache
def _loaded(name: str) -> Config:
    return override(Config(), PRESETS[name])


def at_scale(cfg: Config, size: str) -> Config:
    """The configuration at a number of parameters such as "1M"; see families/sizing.py. Raises ValueError."""
    target = read_scale(size)
    try:
        return scaled(cfg, target, block_parameters)
    except ValueError as error:
        raise ValueError(f"--scale {size}: {error}") from None


def block_parameters(cfg: ModelConfig) -> int:
    """The parameters of a model's blocks, and of its encoder's, that a token uses; no block is made."""
    from model import Model, idle_parameters  # torch takes a second, and only --scale needs it
    from tools import unfilled

    with unfilled():
        model = Model(override(cfg, {"vocab_size": 1, "vocab_multiple_of": 1}))
    stacks = [model.blocks, *([] if model.encoder is None else [model.encoder.blocks])]
    whole = sum(parameter.numel() for stack in stacks for parameter in stack.parameters())
    return whole - sum(map(idle_parameters, stacks))


def parse_command_line(
    argv: Sequence[str], *, program: str, description: str, options: Mapping[str, str] | None = None,
    base: Callable[[Mapping[str, str | None]], Config] | None = None, switches: Mapping[str, str] | None = None,
    change: Callable[[Config, Mapping[str, str | None]], Config] | None = None,
) -> tuple[Config, dict[str, Any]]:
    """Read `[preset] [--config FILE] [--scale SIZE] [--section.flag value ...]`; flags change what the others give.

    `options` are further options of the program with their help, e.g. {"resume": "..."}; `switches` are those without
    a value. The second result is their values, "preset" and "scale". `base` returns the configuration that the
    flags change, from these values and "config"; the default is Config(). `change` is what an option changes in
    it, after file, preset and scale. Help, and mistakes in one sentence on stderr, exit.
    """
    argv = [_whole_name(word) for word in argv]
    preset = argv.pop(0) if argv and not argv[0].startswith("-") else None
    options, switches = dict(options or {}), dict(switches or {})
    own = _parser_of(options, switches)
    options |= switches
    try:
        known, rest = own.parse_known_args(argv)
        values = {name: getattr(known, name.replace("-", "_")) for name in options}
        values |= {"preset": preset, "scale": known.scale}
        cfg = base(values | {"config": known.config}) if base else Config()
        cfg = load_config(Path(known.config)) if known.config else cfg
        cfg = load_preset(preset, cfg) if preset else cfg
        cfg = at_scale(cfg, known.scale) if known.scale else cfg
        cfg = change(cfg, values) if change else cfg
        _require_one_length(rest)
        cfg = parse_flags(rest, cfg, f"{program} [preset]", _help(description, options))
    except (ValueError, argparse.ArgumentError) as error:
        fail(error)
    return cfg, values


def _parser_of(options: Iterable[str], switches: Iterable[str]) -> argparse.ArgumentParser:
    """A parser of --config, --scale and a program's own options; it leaves the flags of the configuration."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--scale", metavar="SIZE")
    for name in options:
        parser.add_argument(f"--{name}")
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true")
    return parser


def _require_one_length(words: Sequence[str]) -> None:
    """Raise ValueError if the words say more than once how long to train."""
    said = {word.partition("=")[0] for word in words} & {"--train.steps", "--train.tokens", "--train.epochs"}
    if len(said) > 1:
        raise ValueError(f"{' and '.join(sorted(said))} both say how long to train: leave one out")


def _whole_name(word: str) -> str:
    """A flag with its section, if it was given by its short name."""
    name, equals, value = word.partition("=")
    return f"--train.{name[2:]}{equals}{value}" if name in SHORT else word


def _help(description: str, options: Mapping[str, str]) -> str:
    own = {"config FILE": "start from a saved configuration, in JSON or YAML",
           "scale SIZE": "1M, 10M, 100M, ...: the preset with about so many parameters in its blocks, not counting the "
                         "embedding and the head: its proportions, the tokenizer's vocabulary, a short context"}
    own |= options
    own["model.kinds.NAME.FLAG VALUE"] = "a flag of one kind of layer, e.g. --model.kinds.local.attention.window 512"
    lines = [description, "", f"presets: {', '.join(PRESETS)}", "", f"short for --train.X: {', '.join(SHORT)}", "",
             "on or off: --section.flag, --section.no-flag, or --section.flag true|false", ""]
    return "\n".join(lines + [f"--{name}: {text}" for name, text in own.items()])
