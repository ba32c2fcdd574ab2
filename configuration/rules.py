"""The rules of data, tokenizer, training and sampling: impossible values, and when each flag has an effect."""

import math
from typing import Any

from configuration.checks import (
    Acts,
    check_ignored,
    require_between,
    require_folder_name,
    require_not_negative,
    require_positive,
    words_of,
)
from configuration.objective_rules import ACTS_OF_OBJECTIVES, check_objective
from configuration.scaling import check_scaled_training
from configuration.units import parse_seconds

# float32 has no product of much larger rates; a step reads all its batches before its first forward pass
LARGEST = {"lr": 1e30, "embed_lr_mult": 1e6, "head_lr_mult": 1e6, "vector_lr_mult": 1e6, "accumulation": 100_000}
WHOLE_MATRICES = ("adafactor", "soap")  # optimizers that need them


def _is_drawn(cfg: Any) -> bool:
    return bool(cfg.stories) or cfg.is_probe


PROBE_FLAGS = ("symbols", "items", "noise", "longer")
DATA_ACTS: dict[tuple[str, ...], Acts] = {
    ("weights",): ("data.name has several texts", lambda c: len(c.name) > 1),
    ("val_ratio",): ("val_name is not given, and name is no synthetic task",
                     lambda c: not c.val_name and not c.is_probe),
    ("num_stories",): ("a text is tales", lambda c: bool(c.stories)),
    ("seed",): ("a text is tales or a synthetic task, or sample_ratio is below 1",
                lambda c: _is_drawn(c) or c.sample_ratio < 1),
    ("sample_ratio", "max_documents", "separator", "column", "source_column", "subset", "revision", "streaming"): (
        "a text is neither tales nor a synthetic task",
        lambda c: c.stories != {*c.name, *c.val_name} and not c.is_probe),
    ("workers",): ("name is no synthetic task", lambda c: not c.is_probe),
    tuple(f"probe.{flag}" for flag in PROBE_FLAGS): ("name is a synthetic task", lambda c: c.is_probe),
}
NEUTRAL_DATA = {"val_ratio": 0.1, "num_stories": 60_000, "seed": 0, "weights": ()}


def check_data(cfg: Any) -> None:
    require_between(cfg, "val_ratio", open_ends=True)
    require_positive(cfg, "num_stories", "sample_ratio", "max_documents", "workers")
    for name in ("seed", "prefetch"):
        if getattr(cfg, name) < 0:
            raise ValueError(f"{name}={getattr(cfg, name)} is below 0")
    if cfg.sample_ratio > 1:
        raise ValueError(f"sample_ratio={cfg.sample_ratio} must lie between 0 and 1")
    if cfg.separator == "":
        raise ValueError("separator='' is empty: leave it out, or give e.g. a blank line")
    if cfg.separator is not None:  # a shell passes "\n" as two characters
        object.__setattr__(cfg, "separator", cfg.separator.replace("\\n", "\n").replace("\\t", "\t"))
    if not cfg.name:
        raise ValueError("name=() names no text: give a file, a Hub dataset, or tales")
    for flag in ("name", "val_name"):
        if not all(map(str.strip, getattr(cfg, flag))):
            raise ValueError(f"{flag}={words_of(getattr(cfg, flag))!r} has an empty name: leave it out")
    for name in (*cfg.name, *cfg.val_name):
        if (cfg.name + cfg.val_name).count(name) > 1:
            raise ValueError(f"name={words_of(cfg.name + cfg.val_name)} has {name} twice: leave one out")
    if cfg.weights and len(cfg.weights) != len(cfg.name):
        raise ValueError(f"weights={words_of(cfg.weights)} must be one for each data.name: give {len(cfg.name)}, "
                         "or none")
    if not all(0 < weight < math.inf for weight in cfg.weights):
        raise ValueError(f"weights={words_of(cfg.weights)} must all be above 0, and finite")
    check_ignored(cfg, DATA_ACTS, NEUTRAL_DATA)
    if cfg.is_probe:
        _check_task(cfg)
    if cfg.is_pairs and cfg.packing != "pad":
        raise ValueError(f"packing={cfg.packing} would join the pairs of name={words_of(cfg.name)}, or part a target "
                         "from its source: use packing=pad")


def _check_task(cfg: Any) -> None:
    """Raise ValueError if a synthetic task is mixed with a text, or its rows would be."""
    if len(cfg.name + cfg.val_name) > 1:
        raise ValueError(f"name={words_of(cfg.name + cfg.val_name)} has a synthetic task beside another text: it "
                         "stands alone, and validates on rows of its own")
    if cfg.packing != "pad":
        raise ValueError(f"packing={cfg.packing} would join the rows of name={cfg.name[0]}, each a text of its own: "
                         "use packing=pad")


def check_probe(cfg: Any) -> None:
    require_positive(cfg, "symbols", "items")
    require_between(cfg, "noise", open_ends=True)
    if any(factor < 2 for factor in cfg.longer) or len(set(cfg.longer)) < len(cfg.longer):
        raise ValueError(f"longer={words_of(cfg.longer)} must be different numbers from 2 on: rows as long as those of "
                         "the training are evaluated anyway")


def check_tokenizer(cfg: Any) -> None:
    require_positive(cfg, "vocab_size")
    if cfg.vocab_size is not None and cfg.kind in ("char", "byte"):
        raise ValueError(f"vocab_size={cfg.vocab_size} would change nothing: a {cfg.kind} "
                         "tokenizer's size follows from its kind; leave it out, or use kind=bpe")
    if cfg.path is not None and (cfg.kind != "bpe" or cfg.vocab_size is not None):
        raise ValueError(f"path={cfg.path!r} already fixes the tokenizer: leave out kind and vocab_size")


def _ends_low(cfg: Any) -> bool:
    return cfg.schedule in ("linear", "cosine", "restarts", "wsd")


TRAIN_ACTS: dict[tuple[str, ...], Acts] = {
    ("step_size", "step_unit", "step_gamma"): ("schedule is step", lambda c: c.schedule == "step"),
    ("momentum",): ("optimizer is muon or sgd", lambda c: c.optimizer in ("muon", "sgd")),
    ("beta1", "beta2"): ("optimizer is neither sgd nor adafactor", lambda c: c.optimizer not in ("sgd", "adafactor")),
    ("adam_eps",): ("optimizer is none of sgd, adafactor and lion",
                    lambda c: c.optimizer not in ("sgd", "adafactor", "lion")),
    ("precondition_every",): ("optimizer is soap", lambda c: c.optimizer == "soap"),
    ("decay_fraction",): ("schedule is wsd", lambda c: c.schedule == "wsd"),
    ("min_lr_ratio", "flat_fraction"): ("schedule is linear, cosine, restarts or wsd", _ends_low),
    ("num_cycles",): ("schedule is restarts", lambda c: c.schedule == "restarts"),
    ("cycle_growth",): ("schedule is restarts and num_cycles is above 1",
                        lambda c: c.schedule == "restarts" and c.num_cycles > 1),
    ("schedule_unit",): ("schedule is not step, and warmup_tokens or ramp_tokens is given",
                         lambda c: c.schedule != "step" and (c.warmup_tokens is not None or c.ramp_tokens)),
    ("warmup_steps",): ("schedule_unit is steps", lambda c: c.schedule_unit == "steps"),
    ("warmup_tokens",): ("schedule_unit is tokens", lambda c: c.schedule_unit == "tokens"),
    ("ramp_tokens", "log_noise_scale"): ("accumulation is above 1", lambda c: c.accumulation > 1),
    ("final_eval_share",): ("eval_tokens is given", lambda c: c.eval_tokens is not None),
    ("allow_partial",): ("init_from is given", lambda c: c.init_from is not None),
    **ACTS_OF_OBJECTIVES,
}
OF_OPTIMIZERS = {  # what None means for flags of train
    "weight_decay": {"adam": 0.0, "sgd": 0.0, "others": 0.1}, "embed_lr_mult": {"muon": 4.0, "others": 1.0},
    "beta1": {"muon": 0.8, "others": 0.9}, "beta2": {"muon": 0.98, "others": 0.95}}
NEUTRAL_TRAIN = {"step_size": 1, "step_unit": "epochs", "step_gamma": 0.9, "momentum": 0.95, "beta1": 0.9,
                 "beta2": 0.95, "adam_eps": 1e-8, "precondition_every": 10, "decay_fraction": 0.5, "num_cycles": 4,
                 "cycle_growth": 1.0, "schedule_unit": "steps", "final_eval_share": 0.05}


def check_train(cfg: Any) -> None:
    require_positive(cfg, "steps", "tokens", "epochs", "batch_size", "accumulation", "lr", "embed_lr_mult",
                     "head_lr_mult", "vector_lr_mult", "adam_eps", "grad_clip", "step_size", "step_gamma",
                     "precondition_every", "ramp_tokens", "num_cycles", "cycle_growth", "log_every", "eval_every",
                     "eval_tokens", "sample_every", "checkpoint_every", "keep_checkpoints", "loss_chunk")
    for name, largest in LARGEST.items():
        if (getattr(cfg, name) or 0) > largest:
            raise ValueError(f"{name}={getattr(cfg, name)} is larger than {largest:g}")
    require_between(cfg, "beta1", "beta2", "momentum", "min_lr_ratio", "decay_fraction", "flat_fraction")
    require_between(cfg, "ema_decay", open_ends=True)
    require_not_negative(cfg, "warmup_steps", "warmup_tokens", "weight_decay", "graded_stories", "final_eval_share")
    if cfg.tokens is not None and cfg.epochs is not None:
        raise ValueError(f"tokens={cfg.tokens} and epochs={cfg.epochs:g} both say how long to train: leave one out")
    check_optimizer(cfg)
    if cfg.warmup_steps == 0 and cfg.schedule_unit == "tokens":  # unlike for other flags, 0 is a request
        raise ValueError("warmup_steps=0 would change nothing with schedule_unit=tokens: use warmup_tokens=0")
    if cfg.time_limit is not None and not 0 < parse_seconds(cfg.time_limit) < math.inf:
        raise ValueError(f"time_limit={cfg.time_limit} is not a time: use e.g. 90s, 50m or 1.5h")
    if cfg.memory_limit is not None and not cfg.memory_limit_bytes:
        raise ValueError(f"memory_limit={cfg.memory_limit} is not a size: use e.g. 800MB or 2GB")
    if len(set(cfg.trackers)) < len(cfg.trackers):
        raise ValueError(f"trackers={' '.join(cfg.trackers)} names one twice: name each once")
    check_ignored(cfg, TRAIN_ACTS, NEUTRAL_TRAIN)
    require_folder_name("name", cfg.name)


def check_optimizer(cfg: Any) -> None:
    """Raise ValueError if flags ask for what the optimizer cannot do."""
    for name in ("beta1", "beta2", "momentum"):
        if getattr(cfg, name) == 1:
            raise ValueError(f"{name}=1.0 never lets a gradient in: use less than 1")
    if cfg.shard and cfg.optimizer in WHOLE_MATRICES:
        raise ValueError(f"shard does not go with optimizer={cfg.optimizer}, which needs whole matrices: use another, "
                         "or leave it out")
    if cfg.optimizer == "schedule_free":
        if cfg.schedule != "constant":
            raise ValueError(f"schedule={cfg.schedule!r} does not go with optimizer=schedule_free, which averages the "
                             "weights in place of lowering the rate: use schedule=constant")
        if cfg.beta1 == 0:
            raise ValueError("beta1=0 leaves optimizer=schedule_free without its average: use e.g. 0.9")
        if cfg.ema_decay is not None:
            raise ValueError(f"ema_decay={cfg.ema_decay} would average what optimizer=schedule_free has averaged: "
                             "leave it out, or use another optimizer")


def check_run(cfg: Any) -> None:
    """Raise ValueError if the model, which may be looked at, is not one that train.objective can train."""
    layers = cfg.model.by_kind.values()
    if cfg.data.is_probe:
        _check_probe_run(cfg)
    if cfg.train.log_expert_load and "moe" not in {layer.mlp for layer in layers}:
        raise ValueError("train.log_expert_load=True would change nothing: no layer has model.mlp=moe")
    check_scaled_training(cfg.model, cfg.train)
    check_objective(cfg)


def _check_probe_run(cfg: Any) -> None:
    """Raise ValueError if flags ask for what a synthetic task does not have: a tokenizer to choose, epochs, an end."""
    given, name = cfg.tokenizer, cfg.data.name[0]
    for flag, plain in (("path", None), ("vocab_size", None), ("kind", "bpe")):
        if getattr(given, flag) != plain:
            raise ValueError(f"tokenizer.{flag}={getattr(given, flag)} would change nothing: the tokens of "
                             f"data.name={name} are its symbols; leave it out")
    if cfg.train.epochs is not None or cfg.train.schedule == "step" and cfg.train.step_unit == "epochs":
        flag = "epochs" if cfg.train.epochs is not None else "step_unit=epochs"
        raise ValueError(f"train.{flag}: data.name={name} has no epochs, its rows are new at every step; count steps")
    if cfg.data.probe.longer and cfg.model.position == "learned":
        raise ValueError(f"data.probe.longer={words_of(cfg.data.probe.longer)}: model.position=learned has no "
                         "positions for longer rows; use another position, or leave it out")


SAMPLE_ACTS: dict[tuple[str, ...], Acts] = {
    ("top_k", "top_p", "min_p"): ("temperature is above 0", lambda c: c.temperature > 0)}


def check_sample(cfg: Any) -> None:
    require_positive(cfg, "num_samples", "max_new_tokens", "top_k", "repetition_penalty")
    if not 0 <= cfg.temperature < math.inf:
        raise ValueError(f"temperature={cfg.temperature} is {'below 0' if cfg.temperature < 0 else 'not finite'}: "
                         "use 0 for greedy")
    require_between(cfg, "top_p", "min_p")
    if cfg.top_p == 0:
        raise ValueError("top_p=0 keeps no token: use temperature=0 for greedy")
    check_ignored(cfg, SAMPLE_ACTS, {})
