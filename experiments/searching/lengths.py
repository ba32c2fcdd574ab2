"""How long a trial trains, when it is evaluated, and at which marks trials are compared and pruned."""

import math
import signal
from typing import Any

from config import Config
from experiments.searching.jobs import Job
from experiments.searching.options import EVALUATIONS, Options
from experiments.searching.studies import unless_revoked


def length(options: Options, base: Config, cfg: Config, step_seconds: float | None) -> dict[str, Any]:
    """The flags that give a trial its steps and its evaluations; `step_seconds` is what step_timing measured."""
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
    """The position of a line of the log, in tenths of the trial's time, or of the tokens that the base trains on."""
    if options.trial_seconds:
        return round(EVALUATIONS * line["step"] / cfg.train.steps)
    return round(line["tokens"] / _tokens_between_marks(options, base))


def _tokens_between_marks(options: Options, base: Config) -> float:
    train = base.train
    tokens = train.steps * train.batch_size * train.accumulation * base.model.max_seq_len
    return (options.trial_tokens or tokens) / EVALUATIONS


@unless_revoked
def follow(job: Job, options: Options, base: Config) -> None:
    """Read what a run has logged; report its evaluations, and end it if the pruner says so."""
    column = options.objective[0]
    for line in job.reader.new_lines() if job.phase == "training" else ():
        if column not in line or "val_loss" not in line or options.settled_pruner in ("none", "wilcoxon"):
            continue
        at = mark(options, base, job.cfg, line)
        if at > job.reported and math.isfinite(line[column]):
            job.trial.report(line[column], at)
            job.reported = at
            if line["step"] < job.cfg.train.steps and job.trial.should_prune():
                job.child.send(signal.SIGTERM, "pruning")


@unless_revoked
def is_worse_over_seeds(job: Job, options: Options) -> bool:
    """Whether the seeds so far show that a trial is worse than the best."""
    if options.settled_pruner != "wilcoxon":
        return False
    job.trial.report(job.values[-1][0], len(job.values) - 1)
    return job.trial.should_prune()
