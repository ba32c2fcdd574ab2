"""A study's trials as tables: all figures for programs (trials.csv), the ones that matter for people (trials.md)."""

import json
from collections.abc import Callable
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from configuration.command_line import spell_bytes
from experiments.searching.outcomes import FAILED, columns, count, ended, flags, oversized_share, signs, spent, varying

FACTS = ("parameters", "predicted_low_bytes", "predicted_high_bytes", "allocator", "peak_bytes", "seconds",
         "predict_seconds", "run", "seed", "repeat_of", "by_seed", "shrunk", "reason")


def trial_table(results: optuna.Study) -> pd.DataFrame:
    """A row for each trial: its outcome, its value in each objective, its FACTS, the flags that vary."""
    trials = results.get_trials(deepcopy=False)
    names = varying(trials)
    rows = []
    for trial in trials:
        row = {"trial": trial.number, "outcome": trial.user_attrs["outcome"], **dict.fromkeys(columns(results))}
        if trial.values:
            row |= dict(zip(columns(results), trial.values, strict=True))
        row |= {name: _plain(trial.user_attrs.get(name)) for name in FACTS}
        rows.append(row | {name: _plain(flags(trial).get(name)) for name in names})
    return pd.DataFrame(rows, columns=["trial", "outcome", *columns(results), *FACTS, *names], dtype=object)


def describe(results: optuna.Study) -> str:
    """The objective, the outcomes and the cost of a search, in three sentences."""
    directions = {1: "less is better", -1: "more is better"}
    sought = " and ".join(f"{column} ({directions[sign]})"
                          for column, sign in zip(columns(results), signs(results), strict=True))
    limit, idle = results.user_attrs.get("limit_bytes"), results.user_attrs.get("baseline_bytes")
    bound = f"limit {size(limit)}" if limit else "no memory limit"
    bound += f", of which an idle process holds {size(idle)}" if limit and idle else ""
    numbers = count(results)
    said = {"oversized": "skipped for memory"}
    ends = ", ".join(f"{number} {said.get(name, name)}" for name, number in numbers.items()) or "none yet"
    seconds = spent(results.get_trials(deepcopy=False))
    return (f"Objective: {sought}; {bound}. {sum(numbers.values())} trials: {ends}. They cost {seconds:,.0f} s, "
            f"{oversized_share(results):.2%} of it for what was skipped for memory.")


def trials_page(results: optuna.Study, best: list[FrozenTrial]) -> str:
    """The trials in Markdown, a table for each outcome."""
    places = {trial.number: place for place, trial in enumerate(best)}  # a front leaves out most trials that are done
    done = sorted(ended(results, "done"), key=lambda trial: (
        places.get(trial.number, len(places)), signs(results)[0] * trial.values[0]))
    parts = [f"# {results.study_name}\n\n{describe(results)}\n"]
    for title, trials, cells in (
        ("Done, best first", done, _done), ("Pruned", ended(results, "pruned"), _pruned),
        ("Skipped for memory", ended(results, "oversized"), _oversized),
        ("Invalid", ended(results, "invalid"), _invalid), ("Failed", ended(results, *FAILED), _failed),
    ):
        if trials:
            parts.append(f"## {title}\n\n{_markdown(trials, results, cells)}\n")
    return "\n".join(parts)


def _done(trial: FrozenTrial, results: optuna.Study) -> dict[str, str]:
    texts, each = dict(zip(columns(results), map(figure, trial.values), strict=True)), trial.user_attrs["by_seed"]
    if len(each) > 1:
        texts[columns(results)[0]] += f" ({len(each)} seeds: {figure(min(each))} to {figure(max(each))})"
    return texts | {"parameters": figure(trial.user_attrs.get("parameters"))} | _cost(trial)


def _pruned(trial: FrozenTrial, results: optuna.Study) -> dict[str, str]:
    step = trial.last_step
    last = "" if step is None else figure(trial.intermediate_values[step])
    return {"last value": last, "report": figure(step), "parameters": figure(trial.user_attrs.get("parameters")),
            **_cost(trial)}


def _oversized(trial: FrozenTrial, results: optuna.Study) -> dict[str, str]:
    least, limit = trial.user_attrs["predicted_low_bytes"], results.user_attrs["limit_bytes"]
    return {"needs at least": size(least), "of the limit": f"{least / limit:.2f} x",
            "parameters": figure(trial.user_attrs.get("parameters"))}


def _failed(trial: FrozenTrial, results: optuna.Study) -> dict[str, str]:
    return {"outcome": trial.user_attrs["outcome"]} | _invalid(trial, results) | _cost(trial)


def _invalid(trial: FrozenTrial, results: optuna.Study) -> dict[str, str]:
    return {"reason": trial.user_attrs.get("reason") or ""}


def _cost(trial: FrozenTrial) -> dict[str, str]:
    known = trial.user_attrs
    return {"predicted": _predicted(trial), "measured": size(known.get("peak_bytes")),
            "allocator": known.get("allocator") or "", "seconds": figure(known.get("seconds")),
            "run": known.get("run") or ""}


def _predicted(trial: FrozenTrial) -> str:
    low, high = (trial.user_attrs.get(f"predicted_{end}_bytes") for end in ("low", "high"))
    return f"{size(low)} to {size(high)}" if low and high else ""


def _markdown(trials: list[FrozenTrial], results: optuna.Study, cells: Callable) -> str:
    names = varying(results.get_trials(deepcopy=False))
    rows = [{"trial": str(trial.number)} | cells(trial, results)
            | {name: figure(_plain(flags(trial).get(name))) for name in names} for trial in trials]
    heading = list(rows[0])
    lines = [heading, ["---"] * len(heading), *([row[name] for name in heading] for row in rows)]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in line)} |" for line in lines)


def figure(value: Any) -> str:
    """A number with four digits and commas; a text as it is; "" for None."""
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def size(num_bytes: float | None) -> str:
    """Bytes as MB or GB of 10^6 and 10^9; "" for None."""
    return "" if num_bytes is None else spell_bytes(num_bytes)


def _plain(value: Any) -> Any:
    """A value that a table's cell can hold: a list or mapping as JSON, None if it is empty."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value) if value else None
