"""How long a trial trains, when it is evaluated, and at which marks trials of any batch are compared."""

import math
from typing import Any

from searching.options import EVALUATIONS, Options

from config import Config


def length(options: Options, base: Config, cfg: Config, step_seconds: float | None) -> dict[str, Any]:
    """The flags that give a trial its steps and its evaluations; `step_seconds` is what searching.timing measured."""
    step_tokens = cfg.train.batch_size * cfg.train.accumulation * cfg.model.max_seq_len
    steps = cfg.train.steps
    if options.trial_tokens:
        steps = max(1, round(options.trial_tokens / step_tokens))
    elif options.trial_seconds:
        steps = max(EVALUATIONS, round(options.trial_seconds / step_seconds))
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
