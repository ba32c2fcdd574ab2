"""A study's trials as tables: all figures for programs (trials.csv), the ones that matter for people (trials.md)."""

import json
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from configuration.command_line import spell_bytes
from experiments.common.reports import markdown_table
from experiments.searching.losses import meanings, signs_before
from experiments.searching.outcomes import FAILED, OUTCOMES, columns, ended, flags, signs, varying

FACTS = ("parameters", "predicted_low_bytes", "predicted_high_bytes", "allocator", "peak_bytes", "seconds",
         "predict_seconds", "run", "seed", "repeat_of", "by_seed", "shrunk", "reason")
SECTIONS = {"Pruned": ("pruned",), "Skipped for memory": ("oversized",), "Invalid": ("invalid",), "Failed": FAILED}


def trial_table(results: optuna.Study) -> pd.DataFrame:
    """A row for each trial: its outcome, its value in each objective, its FACTS, the flags that vary."""
    trials, objectives = results.get_trials(deepcopy=False), columns(results)
    rows = [{"trial": trial.number} | dict(zip(objectives, trial.values or (), strict=False)) | trial.user_attrs
            | flags(trial) for trial in trials]
    names = dict.fromkeys(["trial", "outcome", *objectives, *FACTS, *varying(trials)])
    return pd.DataFrame(rows, columns=list(names), dtype=object).map(_plain)


def costs(table: pd.DataFrame) -> pd.Series:
    """The seconds that trials took, their predictions and their processes, by outcome."""
    seconds = table[["predict_seconds", "seconds"]].astype(float).sum(axis=1)
    return seconds.groupby(table.outcome).sum()


def oversized_share(table: pd.DataFrame) -> float:
    """The share of all seconds that went to configurations skipped for memory."""
    spent = costs(table)
    return float(spent.get("oversized", 0.0) / (spent.sum() or 1.0))


def describe(results: optuna.Study, table: pd.DataFrame) -> str:
    """The objective, the outcomes and the cost of a search, in three sentences."""
    directions = {1: "less is better", -1: "more is better"}
    sought = " and ".join(f"{column} ({directions[sign]})"
                          for column, sign in zip(columns(results), signs(results), strict=True))
    bound, idle = f"limit {size(results.user_attrs['limit_bytes'])}", results.user_attrs.get("baseline_bytes")
    bound += f", of which an idle process holds {size(idle)}" if idle else ""
    numbers, said = table.outcome.value_counts(), {"oversized": "skipped for memory"}
    ends = ", ".join(f"{numbers[name]} {said.get(name, name)}" for name in OUTCOMES if name in numbers) or "none yet"
    return (f"Objective: {sought}; {bound}. {len(table)} trials: {ends}. They cost {costs(table).sum():,.0f} s, "
            f"{oversized_share(table):.2%} of it for what was skipped for memory.{meanings(results)}")


def trials_page(results: optuna.Study, best: list[FrozenTrial], summary: str) -> str:
    """The trials in Markdown, a table for each outcome."""
    places = {trial.number: place for place, trial in enumerate(best)}  # a front leaves out most trials that are done
    done = sorted(ended(results, "done"), key=lambda trial: (
        places.get(trial.number, len(places)), signs(results)[0] * trial.values[0]))
    sections = {"Done, best first": done} | {title: ended(results, *found) for title, found in SECTIONS.items()}
    names, before = varying(results.get_trials(deepcopy=False)), signs_before(results)
    parts = [f"# {results.study_name}\n\n{summary}\n"]
    for title, trials in sections.items():
        rows = [{"trial": trial.number} | _cells(trial, results, before[trial.number])
                | {name: figure(_plain(flags(trial).get(name))) for name in names} for trial in trials]
        if rows:
            parts.append(f"## {title}\n\n{markdown_table(rows)}\n")
    return "\n".join(parts)


def _cells(trial: FrozenTrial, results: optuna.Study, before: list[str]) -> dict[str, str]:
    """What the page says of a trial, besides its number and its flags; the signs `before` are those of its values."""
    known, outcome = trial.user_attrs, trial.user_attrs["outcome"]
    cells, low, high = {}, known.get("predicted_low_bytes"), known.get("predicted_high_bytes")
    if outcome in FAILED:
        cells["outcome"] = outcome
    if outcome in ("invalid", *FAILED):
        cells["reason"] = " ".join(known.get("reason", "").split())
    if outcome == "done":
        cells = {name: sign + figure(value) for name, sign, value in zip(
            columns(results), before, trial.values, strict=True)}
        if len(each := known["by_seed"]) > 1:
            cells[columns(results)[0]] += f" ({len(each)} seeds: {figure(min(each))} to {figure(max(each))})"
    if outcome == "pruned":
        cells = {"last value": figure(trial.intermediate_values.get(trial.last_step)),
                 "report": figure(trial.last_step)}
    if outcome == "oversized":
        cells = {"needs at least": size(low), "of the limit": f"{low / results.user_attrs['limit_bytes']:.2f} x"}
    if outcome != "invalid":
        cells["parameters"] = figure(known.get("parameters"))
    if outcome not in ("invalid", "oversized"):
        cells |= {"predicted": f"{size(low)} to {size(high)}" if low and high else "",
                  "measured": size(known.get("peak_bytes")), "allocator": known.get("allocator") or "",
                  "seconds": figure(known.get("seconds")), "run": known.get("run", "")}
    return cells


def figure(value: Any) -> str:
    """A number with four digits and commas; a text as it is, a list as JSON; "" for None."""
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case list() | tuple():
            return json.dumps(value)
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
