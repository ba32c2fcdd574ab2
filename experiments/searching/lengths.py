"""How long a trial trains, when it is evaluated, and at which marks trials of any batch are compared."""

import math
from typing import Any

from searching.options import EVALUATIONS, Options

from config import Config


def length(options: Options, base: Config, cfg: Config, timing: dict[str, float] | None) -> dict[str, Any]:
    """The flags that give a trial its steps and its evaluations; `timing` is what searching.timing measured."""
    step_tokens = cfg.train.batch_size * cfg.train.accumulation * cfg.model.max_seq_len
    steps = cfg.train.steps
    if options.trial_tokens:
        steps = max(1, round(options.trial_tokens / step_tokens))
    elif options.trial_seconds:
        some = min(cfg.train.eval_tokens or math.inf, timing["val_tokens"])
        evaluating = ((EVALUATIONS - 1) * some + timing["val_tokens"]) * timing["token_seconds"]
        left = options.trial_seconds - timing["start_seconds"] - evaluating
        steps = max(EVALUATIONS, int(left / timing["step_seconds"]))
    every = steps / EVALUATIONS if options.trial_seconds else _tokens_between_marks(options, base) / step_tokens
    return {"train.steps": steps, "train.eval_every": max(1, math.floor(every)), "train.checkpoint_every": steps,
            "train.sample_every": steps, "train.keep_checkpoints": 1}


def mark(options: Options, base: Config, cfg: Config, line: dict[str, float]) -> int:
    """Where a line of the log stands, in tenths: of the trial's time, or of the tokens that the base trains on."""
    if options.trial_seconds:
        return round(EVALUATIONS * line["step"] / cfg.train.steps)
    return round(line["tokens"] / _tokens_between_marks(options, base))


def _tokens_between_marks(options: Options, base: Config) -> float:
    train = base.train
    tokens = train.steps * train.batch_size * train.accumulation * base.model.max_seq_len
    return (options.trial_tokens or tokens) / EVALUATIONS
