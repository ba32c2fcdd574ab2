"""Studies as a search leaves them, made by ask and tell: nothing is trained."""

import math
import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from config import Config, to_dict

MB = 10**6
LIMIT, BASELINE = 700 * MB, 300 * MB
optuna.logging.set_verbosity(optuna.logging.WARNING)


def empty_study(*objectives: str, storage: Any = None, **attrs: Any) -> optuna.Study:
    """A study with the attributes of a search; accuracy is to be maximised, all else minimised."""
    objectives = objectives or ("bits_per_byte",)
    directions = ["maximize" if column == "accuracy" else "minimize" for column in objectives]
    study = optuna.create_study(study_name="made", directions=directions, storage=storage,
                                sampler=optuna.samplers.RandomSampler(seed=0))
    pairs = [{"column": column, "direction": way} for column, way in zip(objectives, directions, strict=True)]
    known = {"base": to_dict(Config()), "limit_bytes": LIMIT, "baseline_bytes": BASELINE, "objectives": pairs}
    for name, value in (known | attrs).items():
        study.set_user_attr(name, value)
    return study


def add(
    study: optuna.Study, outcome: str, *values: float, params: dict[str, tuple[BaseDistribution, Any]] | None = None,
    state: TrialState | None = None, reports: dict[int, float] | None = None, **attrs: Any,
) -> int:
    """Ask for a trial with these parameters, tell how it ended, and return its number.

    `state` is what the sampler is told, which need not be what happened.
    """
    params = params or {}
    study.enqueue_trial({name: value for name, (_, value) in params.items()})
    trial = study.ask({name: distribution for name, (distribution, _) in params.items()})
    known = {"outcome": outcome, "flags": trial.params, "seed": 0, "run": f"made-{trial.number:04d}"}
    for name, value in (known | attrs).items():
        trial.set_user_attr(name, value)
    for step, value in (reports or {}).items():
        trial.report(value, step)
    told = TrialState.PRUNED if outcome == "pruned" else TrialState.COMPLETE if values else TrialState.FAIL
    study.tell(trial, list(values) or None, state=state or told)
    return trial.number


def searched(num_trials: int, *objectives: str, storage: Any = None) -> optuna.Study:
    """A whole search: sizes, a log range, choices, a conditional parameter; about half of it exceeds the limit."""
    study, draw = empty_study(*objectives, storage=storage), random.Random(0)
    for _ in range(num_trials):
        trial = study.ask()
        known, loss = pretend(suggest(trial), draw)
        for name, value in (known | {"run": f"made-{trial.number:04d}", "seed": 0}).items():
            trial.set_user_attr(name, value)
        found = known | {"bits_per_byte": loss, "accuracy": 1 - loss}
        if known["outcome"] == "done":
            study.tell(trial, [found[objective["column"]] for objective in study.user_attrs["objectives"]])
        elif known["outcome"] == "pruned":
            if len(study.directions) == 1:
                trial.report(loss + 0.2, 2)
                trial.report(loss + 0.1, 4)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)
    return study


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    flags = {
        "model.dim": trial.suggest_int("model.dim", 64, 512, step=32),
        "model.num_layers": trial.suggest_int("model.num_layers", 1, 8),
        "train.lr": trial.suggest_float("train.lr", 1e-4, 3e-2, log=True),
        "model.norm": trial.suggest_categorical("model.norm", ["rms", "layer", "cosine"]),
        "model.mlp": trial.suggest_categorical("model.mlp", ["mlp", "glu"]),
        "train.batch_size": trial.suggest_categorical("train.batch_size", [4, 8, 16, 32]),
    }
    if flags["model.mlp"] == "glu":
        flags["model.activation"] = trial.suggest_categorical("model.activation", ["silu", "gelu_tanh"])
    return flags


def pretend(flags: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], float]:
    """What a search would have found out of a configuration: attributes, loss."""
    dim, layers = flags["model.dim"], flags["model.num_layers"]
    parameters = 12 * layers * dim**2 + 2 * 4096 * dim
    live = 16 * parameters + 60 * flags["train.batch_size"] * 256 * dim * layers
    low, high = round(BASELINE + 1.06 * live), round(BASELINE + 1.75 * live)
    loss = 0.3 + 0.15 * math.log10(flags["train.lr"] / 0.006) ** 2 + 8 / dim + draw.gauss(0, 0.006)
    outcome = draw.choices(("done", "pruned", "diverged", "crashed", "out of memory"), (70, 20, 4, 3, 3))[0]
    known = {"flags": flags, "predict_seconds": draw.uniform(0.2, 0.6), "parameters": parameters,
             "predicted_low_bytes": low, "predicted_high_bytes": high}
    if low > LIMIT:
        return known | {"outcome": "oversized", "reason": f"{low} bytes predicted", "allocator": None}, loss
    fast = high <= LIMIT
    peak = BASELINE + round(live * draw.uniform(1.05, 1.6 if fast else 1.06))
    return known | {"outcome": outcome, "allocator": "fast" if fast else "tight", "peak_bytes": peak,
                    "seconds": draw.uniform(15, 30)}, loss
