"""The gallery: published architectures and a ladder up to them, as overrides of `Config`; the command line.

A preset lists only what differs from the defaults of config.py that it must not inherit; sizes are
the published ones. `python model.py gpt2` shows one, `python train.py gpt2 --model.num-layers 4`
trains it with a change.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import Config, load_config, override, replace
from configuration.command_line import fail, parse_flags

# What config.py's own defaults choose for the small modern model, put back to plain choices, so
# that editing a default there never changes a published architecture by accident.
PLAIN_MODEL: dict[str, Any] = {
    "num_kv_heads": None, "head_dim": None, "hidden_dim": None, "hidden_mult": 4.0, "hidden_multiple_of": 32,
    "vocab_multiple_of": 1,
    "mixers": ("attention",), "mlp": "mlp", "activation": "gelu_tanh",
    "q_bias": False, "k_bias": False, "v_bias": False, "out_bias": False, "mlp_bias": False, "head_bias": False,
    "norm": "layer", "norm_eps": 1e-5, "norm_affine": True, "norm_bias": False, "norm_unit_offset": False,
    "residual": "pre", "final_norm": True, "embed_norm": False,
    "qk_norm": "none", "window": None, "window_pattern": "S", "attn_softcap": None, "attn_scale": None,
    "position": "rope", "rope_theta": 10_000.0, "rope_fraction": 1.0, "rope_layout": "half",
    "tie_embeddings": False, "embed_scale": 1.0, "logit_softcap": None, "logit_scale": 1.0, "residual_scale": 1.0,
    "pointer": False, "pointer_dim": 64,
    "embed_dropout": 0.0, "attn_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0,
    "init": "normal", "init_std": 0.02, "out_init": "same", "head_zero_init": False, "z_loss": 0.0,
}
ADAMW = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "grad_clip": 1.0,
         "embed_lr_mult": 1.0, "head_lr_mult": 1.0, "vector_lr_mult": 1.0, "schedule": "cosine", "min_lr_ratio": 0.1}


def _gpt2(dim: int, num_layers: int, num_heads: int) -> dict[str, dict[str, Any]]:
    """Radford et al. 2019; the widths and depths of its table 2."""
    return {
        "model": PLAIN_MODEL | {
            "dim": dim, "num_layers": num_layers, "num_heads": num_heads, "vocab_size": 50257, "max_seq_len": 1024,
            "q_bias": True, "k_bias": True, "v_bias": True, "out_bias": True, "mlp_bias": True, "norm_bias": True,
            "position": "learned", "tie_embeddings": True, "out_init": "depth",
            "embed_dropout": 0.1, "attn_dropout": 0.1, "residual_dropout": 0.1,
        },
        "train": ADAMW | {"lr": 6e-4},
    }


PRESETS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    # config.py as it stands: what trains best here, found by measuring
    "default": {},
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    # Grattafiori et al. 2024, arXiv:2407.21783, table 3: the 8B model
    "llama3": {
        "model": PLAIN_MODEL | {
            "dim": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 8, "hidden_dim": 14336,
            "vocab_size": 128256, "max_seq_len": 8192, "mlp": "glu", "activation": "silu",
            "norm": "rms", "rope_theta": 500_000.0,
        },
        "train": ADAMW | {"lr": 3e-4},
    },
    # Gemma Team 2024, arXiv:2408.00118: the 2B model
    "gemma2": {
        "model": PLAIN_MODEL | {
            "dim": 2304, "num_layers": 26, "num_heads": 8, "num_kv_heads": 4, "head_dim": 256, "hidden_dim": 9216,
            "vocab_size": 256000, "max_seq_len": 8192, "mlp": "glu", "norm": "rms", "norm_eps": 1e-6,
            "norm_unit_offset": True, "residual": "sandwich", "window": 4096, "window_pattern": "SF",
            "attn_softcap": 50.0, "logit_softcap": 30.0, "tie_embeddings": True, "embed_scale": "sqrt_dim",
        },
        "train": ADAMW | {"lr": 3e-4},
    },
    # xai-org/grok-1, dense: one MLP stands where the original has eight experts
    "grok1": {
        "model": PLAIN_MODEL | {
            "dim": 6144, "num_layers": 64, "num_heads": 48, "num_kv_heads": 8, "head_dim": 128, "hidden_dim": 32768,
            "vocab_size": 131072, "max_seq_len": 8192, "mlp": "glu", "norm": "rms", "residual": "sandwich",
            "attn_softcap": 30.0, "attn_scale": 0.08838834764831845, "logit_scale": 0.5773502691896257,
            "tie_embeddings": True, "embed_scale": "sqrt_dim",
        },
        "train": ADAMW | {"lr": 3e-4},
    },
    # characters of a small text, at nanoGPT's CPU size but with what was learned since: the loss that its
    # recipe reaches after 1,536,000 tokens comes in 250,000 (experiments/benchmark.py tokens-to-loss)
    "char": {
        "model": PLAIN_MODEL | {
            "dim": 128, "num_layers": 4, "num_heads": 4, "vocab_size": None, "max_seq_len": 64, "activation": "relu2",
            "norm": "rms", "norm_eps": 1e-6, "qk_norm": "head", "out_init": "zero",
        },
        "tokenizer": {"kind": "char", "vocab_size": None},
        "train": ADAMW | {"optimizer": "muon", "lr": 5e-3, "momentum": 0.95, "schedule": "wsd", "decay_fraction": 0.8,
                          "min_lr_ratio": 0.0, "warmup_steps": None, "batch_size": 4, "accumulation": 1, "steps": 975,
                          "precision": "float32"},
    },
    # Karpathy 2022, nanoGPT's recipe for a laptop's CPU: the one to beat
    "nanogpt-char": {
        "model": PLAIN_MODEL | {
            "dim": 128, "num_layers": 4, "num_heads": 4, "vocab_size": None, "max_seq_len": 64, "activation": "gelu",
            "position": "learned", "tie_embeddings": True, "out_init": "depth",
        },
        "tokenizer": {"kind": "char", "vocab_size": None},
        "train": ADAMW | {"lr": 1e-3, "beta2": 0.99, "batch_size": 12, "accumulation": 1, "steps": 2000,
                          "warmup_steps": 100, "precision": "float32"},
    },
    # Southern Cross AI's JoeyLLM at its smallest
    "babyjoey": {
        "model": PLAIN_MODEL | {
            "dim": 512, "num_layers": 1, "num_heads": 8, "vocab_size": 50257, "max_seq_len": 512,
            "q_bias": True, "k_bias": True, "v_bias": True, "out_bias": True, "mlp_bias": True, "norm_bias": True,
            "activation": "gelu", "position": "learned",
        },
        "data": {"name": "SouthernCrossAI/Tweets_cricket"},
        "train": ADAMW | {"lr": 1e-5, "weight_decay": 1e-3, "beta2": 0.999, "grad_clip": None, "batch_size": 2,
                          "schedule": "step", "step_size": 1, "step_unit": "epochs", "step_gamma": 0.9,
                          "min_lr_ratio": 0.0, "warmup_steps": 0},
    },
}


# the ladder, from a table of which character follows which to a small GPT: each rung is the one before it and one
# change more, and sees as many tokens of the same text
LADDER: dict[str, Mapping[str, Mapping[str, Any]]] = {
    # no mixer, no MLP, no norm: a token's vector goes straight to the head
    "ladder-01-bigram": {
        "model": PLAIN_MODEL | {
            "dim": 64, "num_layers": 1, "num_heads": 1, "vocab_size": None, "max_seq_len": 64,
            "mixers": ("none",), "mlp": "none", "activation": "relu2", "position": "none", "residual": "none",
            "norm": "none", "norm_eps": 1e-6, "init": "fan_in", "init_std": 0.2,
            "out_init": "depth",
        },
        "tokenizer": {"kind": "char", "vocab_size": None},
        "train": ADAMW | {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "weight_decay": 0.0, "schedule": "linear",
                          "min_lr_ratio": 0.0, "batch_size": 1, "accumulation": 1, "precision": "float32"},
    },
    "ladder-02-batches": {"train": {"batch_size": 8}},
    "ladder-03-positions": {"model": {"position": "learned"}},
    "ladder-04-adam": {"train": {"optimizer": "adam", "lr": 4e-3}},
    "ladder-05-attention": {"model": {"mixers": ("attention",)}},
    "ladder-06-heads": {"model": {"num_heads": 4}},
    "ladder-07-feed-forward": {"model": {"mlp": "mlp", "activation": "relu"}},
    "ladder-08-blocks": {"model": {"num_layers": 4}},
    "ladder-09-residual": {"model": {"residual": "pre"}},
    "ladder-10-norm": {"model": {"norm": "layer"}},
    "ladder-11-dropout": {"model": {"residual_dropout": 0.1}},
    "ladder-12-scale": {"model": {"dim": 128, "num_heads": 8, "max_seq_len": 128}, "train": {"batch_size": 4}},
}
LADDER_TOKENS = 4_096_000


def paced(batch_size: int, seq_len: int, tokens: int) -> dict[str, int]:
    """The flags of train for a run of so many tokens that is looked at ten times, and writes at its end."""
    steps = max(1, tokens // (batch_size * seq_len))
    often = {"eval_every": max(1, steps // 10), "checkpoint_every": max(1, steps // 10)}
    return {"steps": steps, "log_every": max(1, steps // 100), "sample_every": steps, "eval_tokens": 10_000} | often


def _climb() -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Each rung of the ladder, with all that the rungs below it say."""
    said: dict[str, dict[str, Any]] = {}
    rungs = {}
    for name, changes in LADDER.items():
        said = {section: said.get(section, {}) | changes.get(section, {}) for section in said | changes}
        pace = paced(said["train"]["batch_size"], said["model"]["max_seq_len"], LADDER_TOKENS)
        rungs[name] = said | {"train": said["train"] | pace}
    return rungs


PRESETS |= _climb()

SHORT = ("--init-from", "--allow-partial", "--time-limit", "--memory-limit")  # flags of train that need no section


def load_preset(name: str, base: Config | None = None) -> Config:
    """The configuration of a preset: its overrides on `base`, or on the defaults.

    Raises ValueError naming the presets where `name` is none of them.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is not known: use one of {', '.join(PRESETS)}")
    return override(base or Config(), PRESETS[name])


def tiny(cfg: Config, *, vocab_size: int = 61, max_seq_len: int = 32) -> Config:
    """The same architecture at toy size, for tests and traces: every choice kept, widths and depth cut."""
    model = cfg.model
    layers = max(2, len(model.mixers), len(model.window_pattern))
    shared = model.num_heads // model.kv_heads
    kv_heads = 1 if model.kv_heads == 1 else 2
    return replace(cfg, model=replace(
        model, dim=48, num_layers=layers, num_heads=kv_heads * min(shared, 2),
        num_kv_heads=None if model.num_kv_heads is None else kv_heads,
        head_dim=None if model.head_dim is None else 16,
        hidden_dim=None if model.hidden_dim is None else 80, vocab_size=vocab_size, max_seq_len=max_seq_len,
        window=None if model.window is None else 5,
    ))


def parse_command_line(
    argv: Sequence[str], *, program: str, description: str, options: Mapping[str, str] | None = None,
    base: Callable[[Mapping[str, str | None]], Config] | None = None, switches: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, Any]]:
    """Read `[preset] [--config FILE] [--section.flag value ...]`; later ones win.

    `options` names further options of the program with their help, e.g. {"resume": "..."}, and `switches` those
    without a value; what they say is the second result, with the preset's name. `base` gives the configuration that
    the flags change from them and "config", in place of the defaults. Prints help, or one sentence on stderr, and
    exits where that is due.
    """
    argv = [_whole_name(word) for word in argv]
    preset = argv.pop(0) if argv and not argv[0].startswith("-") else None
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--config", metavar="FILE")
    for name in options or {}:
        own.add_argument(f"--{name}")
    for name in switches or {}:
        own.add_argument(f"--{name}", action="store_true")
    options = dict(options or {}) | dict(switches or {})
    try:
        known, rest = own.parse_known_args(argv)
        values = {name: getattr(known, name.replace("-", "_")) for name in options} | {"preset": preset}
        cfg = base(values | {"config": known.config}) if base else Config()
        cfg = load_config(Path(known.config)) if known.config else cfg
        cfg = load_preset(preset, cfg) if preset else cfg
        cfg = parse_flags(rest, cfg, f"{program} [preset]", _help(description, options))
    except (ValueError, argparse.ArgumentError) as error:
        fail(error)
    return cfg, values


def _whole_name(word: str) -> str:
    """A flag that has a short name, with its section."""
    name, equals, value = word.partition("=")
    return f"--train.{name[2:]}{equals}{value}" if name in SHORT else word


def _help(description: str, options: Mapping[str, str]) -> str:
    own = {"config FILE": "start from a saved configuration, JSON or YAML"} | dict(options)
    lines = [description, "", f"presets: {', '.join(PRESETS)}", f"short for --train.X: {', '.join(SHORT)}",
             "on or off: --section.flag, --section.no-flag, or --section.flag true|false", ""]
    return "\n".join(lines + [f"--{name}: {text}" for name, text in own.items()])
