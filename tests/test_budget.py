"""What a run may take: predicted before it, limited during it, measured after it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fresh_process import child_baseline_bytes
from lives import QUIET
from rich.console import Console
from small_runs import assert_same_run, small_run_config

import train
from config import save_config
from memory_prediction import suggestions
from memory_prediction.budget import EXIT_OUT_OF_MEMORY, EXIT_WATCHDOG
from memory_prediction.prediction import Prediction
from memory_prediction.process import rss_bytes
from runs import Run

linux = pytest.mark.skipif(rss_bytes() is None, reason="the memory of a process is read from /proc")


def test_a_run_says_what_it_will_take_and_what_it_took(go, predicted, models, reference, capfd):
    run = go(console=Console(width=500))
    said = capfd.readouterr().out
    assert "B predicted of " in said and "(free)" in said and "memory: at most " in said
    numbers = json.loads((run.path / "memory.json").read_text())
    assert 0 < numbers["baseline_bytes"] < numbers["predicted_low_bytes"] <= numbers["predicted_high_bytes"]
    assert numbers["allocator"] == "fast" and numbers["limit_bytes"] is None
    assert numbers["peak_bytes"] > 0
    assert_same_run(run, reference)  # the dry run draws nothing, and moves nothing


@pytest.mark.slow
@linux
def test_a_run_that_cannot_fit_is_refused_before_it_begins_and_ways_are_named(
        go, predicted, models, monkeypatch):
    monkeypatch.setattr(suggestions, "time", SimpleNamespace(monotonic=lambda: 0.0))  # a busy machine names fewer
    large = {"train.batch_size": 2**14, "model.max_seq_len": 256, "model.dim": 256, "model.num_layers": 1,
             "train.memory_limit": "6GB"}
    with pytest.raises(ValueError) as caught:
        go(large)
    sentence = str(caught.value)
    assert sentence.startswith("train.memory_limit=6GB: the run needs ") and "and 6.00 GB can be had" in sentence
    ways = sentence.partition("it would fit with ")[2].split("; ")
    assert len(ways) == 3 and all(way.startswith("--train.batch-size ") for way in ways[:2]) and "--force" in ways[2]
    assert not models.exists()


@pytest.mark.thorough
@linux
def test_a_run_that_fits_only_tightly_runs_with_memory_that_goes_back(start, folder, models, tmp_path):
    cfg = small_run_config(folder, {"model.dim": 64, "train.batch_size": 512, "train.steps": 4})
    save_config(cfg, tmp_path / "config.json")
    process = start("--config", str(tmp_path / "config.json"), "--train.name", "free")
    assert process.wait() == 0
    free = json.loads((models / "free" / "memory.json").read_text())
    assert free["predicted_low_bytes"] <= free["peak_bytes"] <= free["predicted_high_bytes"]
    between = (free["predicted_low_bytes"] + free["predicted_high_bytes"]) // 2
    process = start("--config", str(tmp_path / "config.json"), "--memory-limit", str(between))
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "") and "memory goes back at once" in said
    tight = json.loads((models / "toy" / "memory.json").read_text())
    assert tight["allocator"] == "tight" and free["allocator"] == "fast"
    assert tight["peak_bytes"] <= tight["limit_bytes"] == between
    assert_same_run(Run(models / "toy"), Run(models / "free"))


@pytest.mark.thorough
@linux
def test_a_compiled_run_peaks_in_its_range(start, folder, models, tmp_path):
    compiled = {"model.num_layers": 1, "model.mlp": "none", "model.hidden_dim": None, "train.compile": True,
                "train.steps": 2}
    save_config(small_run_config(folder, compiled), tmp_path / "config.json")
    assert start("--config", str(tmp_path / "config.json")).wait() == 0
    numbers = json.loads((models / "toy" / "memory.json").read_text())
    assert numbers["predicted_low_bytes"] <= numbers["peak_bytes"] <= numbers["predicted_high_bytes"]


@pytest.mark.thorough
@linux
def test_where_next_to_nothing_is_left_a_forced_run_ends(start, folder, models, tmp_path):
    save_config(small_run_config(folder, {"train.batch_size": 512, "model.dim": 64}), tmp_path / "config.json")
    limit = child_baseline_bytes() + 10 * 2**20
    process = start("--config", str(tmp_path / "config.json"), "--memory-limit", str(limit), "--force")
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (EXIT_OUT_OF_MEMORY, EXIT_WATCHDOG) and errors.startswith("error: memory ran out: ")


@pytest.mark.slow
@linux
def test_a_run_that_outgrows_its_limit_ends_with_a_sentence_and_keeps_its_checkpoint(go, models):
    go({"train.steps": 12})
    code = """
import torch, train
from training.step import TrainState
step, held = TrainState.step, []
def greedy(self, *args, number, **rest):
    held.extend(torch.ones(2**28) for _ in range(2 * (number == 20)))
    return step(self, *args, number=number, **rest)
TrainState.step = greedy
train.main()
"""
    words = ["--resume", "toy", "--train.steps", "30", "--memory-limit", "1500MB"]
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=Path(train.__file__).parent, text=True,
                           capture_output=True, env=os.environ | {"SHAPESHIFTER_MODELS": str(models)})
    assert ended.returncode == EXIT_OUT_OF_MEMORY
    assert ended.stderr.startswith("error: memory ran out: the run may take 1.50 GB, and was predicted to take ")
    assert ended.stderr.endswith("; what was saved is kept: --resume toy\n") and ended.stderr.count("\n") == 1
    assert Run(models / "toy").checkpoint("last").step == 18
    assert json.loads((models / "toy" / "memory.json").read_text())["peak_bytes"] < 1.5e9 + 64e6


@pytest.mark.slow
@linux
def test_force_begins_all_the_same(go, predicted, models, monkeypatch):
    monkeypatch.setattr(Prediction, "low_bytes", 2**50)
    monkeypatch.setattr(Prediction, "high_bytes", 2**50)
    with pytest.raises(ValueError, match=r"^memory: the run needs .* with a much smaller model; or try it .* --force$"):
        go()
    assert train.train(small_run_config(models.parent), console=QUIET, force=True).is_finished
