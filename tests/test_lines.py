"""Lines: runs that differ in their seed alone are one, with the interval of its mean."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_runs
from small_runs import small_run_config

import runs
from config import override
from experiments.common.intervals import mean_interval
from experiments.comparing.lines import lines
from experiments.comparing.sources import CurveSource
from runs import Run
from tokenizer import ByteTokenizer

DATA = small_runs.DATA | {"val_tokens_per_byte": 0.5, "floor_bits_per_byte": 0.4, "train_bytes": 300,
                          "train_tokens": 100}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run's curve, made and not trained: made("a", losses, changes)."""
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")

    def make(name: str, losses: list[float], changes: dict | None = None, **data) -> CurveSource:
        cfg = override(small_run_config(tmp_path), {"train.name": name, "model.vocab_size": 259, **(changes or {})})
        run = Run.create(name, cfg, ByteTokenizer(), DATA | data)
        for step, loss in enumerate(losses, 1):
            run.append({"step": step, "tokens": 64 * step, "train_loss": loss, "bits_per_byte": loss / 2})
        return CurveSource(name, run.log(), run, run.path)

    return make


def log_of_others(name: str, **columns) -> CurveSource:
    return CurveSource(name, pd.DataFrame({"step": [1, 2]} | columns), None, Path(f"{name}.csv"))


def test_runs_that_differ_in_seed_and_name_alone_are_one_line_and_any_other_flag_parts_them(made):
    first = made("tiny-seed-0", [3.0, 2.0])
    wide = made("wide", [3.0, 2.0], {"model.dim": 32})
    second = made("tiny-seed-1", [4.0, 1.0], {"train.seed": 1})
    found = lines([first, wide, second, log_of_others("a", loss=[1.0, 2.0]), log_of_others("b", loss=[1.0, 2.0])])
    assert [(line.name, line.members) for line in found[:2]] == [("tiny", (first, second)), ("wide", (wide,))]
    assert [line.name for line in found[2:]] == ["a", "b"]
    assert found[1].low is found[1].high is None


def test_runs_of_one_seed_are_no_seeds_of_one_line(made):
    once = [made(f"once-{seed}", [3.0, 2.0 + seed], {"train.seed": seed}) for seed in (0, 1)]
    again = [made(f"again-{seed}", [3.0, 2.0 + seed], {"train.seed": seed}) for seed in (0, 1)]
    found = lines([*once, *again])
    assert [(line.name, line.members) for line in found] == [("once", tuple(once)), ("again", tuple(again))]


def test_a_line_of_several_runs_is_their_mean_with_its_interval_at_common_steps(made):
    losses = [[3.0, 2.0, 1.5], [4.0, 1.0, 1.1], [3.2, 1.3, 1.6]]
    sources = [made(f"t-{seed}", row, {"train.seed": seed}) for seed, row in enumerate(losses)]
    sources[1] = replace(sources[1], table=sources[1].table.query("step != 2"))
    (line,) = lines(sources)
    assert list(line.table.step) == list(line.low.step) == list(line.high.step) == [1, 3]
    for row, values in enumerate(np.array(losses).T[[0, 2]]):
        expected = mean_interval(values)
        for frame, number in ((line.table, expected.mean), (line.low, expected.low), (line.high, expected.high)):
            assert frame.train_loss[row] == pytest.approx(number)
    assert list(line.low.tokens) == list(line.high.tokens) == list(line.table.tokens) == [64, 192]


def test_what_one_seed_has_not_measured_has_no_mean(made):
    sources = [made(f"t-{seed}", [3.0, 2.0], {"train.seed": seed}) for seed in (0, 1)]
    sources[1].table.loc[0, "train_loss"] = math.nan
    (line,) = lines(sources)
    assert np.isnan(line.table.train_loss[0]) and line.table.train_loss[1] == 2


def test_a_run_that_stopped_early_or_learned_another_text_is_a_line_of_its_own(made):
    whole = made("t-0", [3.0, 2.0, 1.0])
    stopped = made("t-1", [3.0, 2.0], {"train.seed": 1})
    changed = made("t-2", [3.0, 2.0, 1.0], {"train.seed": 2}, fingerprint="g")
    assert [line.members for line in lines([whole, stopped, changed])] == [(whole,), (stopped,), (changed,)]


def test_curves_are_in_the_order_of_steps_and_in_bits_per_byte_where_the_tokenizer_is_known(made):
    run = made("t", [3.0, 2.0])
    foreign = log_of_others("a", train_loss=[1.0, 2.0], note=["x", "y"])
    run = replace(run, table=run.table[::-1])
    ours, theirs = lines([run, foreign])
    assert list(ours.table.step) == [1, 2]
    assert list(ours.table.train_bits_per_byte) == pytest.approx([3 * 0.5 / math.log(2), 2 * 0.5 / math.log(2)])
    assert list(ours.table.bytes) == [64 * 3, 128 * 3]
    assert list(ours.table.bits_over_floor) == pytest.approx([1.5 - 0.4, 1.0 - 0.4])
    assert list(theirs.table.columns) == ["step", "train_loss"]


def test_every_line_has_a_name_of_its_own(made):
    def pair(first: str, second: str, dim: int) -> list[CurveSource]:
        return [made(name, [1.0], {"train.seed": seed, "model.dim": dim}) for seed, name in enumerate((first, second))]

    found = lines([*pair("gpt2", "gpt2-b", 8), *pair("run-1", "run-2", 16), *pair("run-3", "run-4", 24),
                   *pair("x1", "y2", 32)])
    assert [line.name for line in found] == ["gpt2", "run-1 and 1 more", "run-3 and 1 more", "x1 and 1 more"]
