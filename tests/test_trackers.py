"""Trackers are told what log.csv says, once for each step however often a run goes on, and only where asked."""

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lives import QUIET, begin_or_go_on, interrupt, kill, wait_until
from small_runs import assert_same_run, small_run_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config import save_config, to_dict
from runs import COLUMNS, TIMED, Run
from train import Interrupted
from train import train as train_run
from training import trackers

pytestmark = pytest.mark.usefixtures("models")
NEEDS_WANDB = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


def events(run: Run) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    return EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def texts(found: EventAccumulator, tag: str) -> dict[int, str]:
    return {event.step: event.tensor_proto.string_val[0].decode() for event in found.Tensors(f"{tag}/text_summary")}


def assert_same_numbers(found: EventAccumulator, log: pd.DataFrame) -> None:
    """Every column of the log, each step once, in float32."""
    assert set(found.Tags()["scalars"]) == set(log.columns) - {"step"} >= set(COLUMNS) - {"step"}
    for name in found.Tags()["scalars"]:
        seen = log[log[name].notna()]
        assert [event.step for event in found.Scalars(name)] == seen.step.tolist()
        assert [event.value for event in found.Scalars(name)] == np.float32(seen[name]).tolist()


# ---- TensorBoard ----


def test_tensorboard_shows_the_log_the_samples_the_configuration_and_the_curve(go):
    run = go({"train.trackers": ("tensorboard",), "sample.prompts": ("the fox",), "train.log_grad_norms": True,
              "train.ema_decay": 0.5})
    found = events(run)
    assert_same_numbers(found, run.log())
    assert json.loads(texts(found, "config")[1].strip("`\n")) == json.loads(json.dumps(to_dict(run.config)))
    samples = texts(found, "samples")
    assert list(samples) == [12, 24]
    assert all(sample["text"] in samples[sample["step"]] for sample in run.samples())
    (image,) = found.Images("loss")
    assert image.encoded_image_string == (run.path / "loss.png").read_bytes()
    assert (image.step, image.width, image.height) == (24, 1040, 585)


@pytest.mark.parametrize("step", [9, 12])
def test_tensorboard_shows_each_step_once_after_an_interrupt_and_a_kill(go, folder, at_step, step):
    changes = {"train.trackers": ("tensorboard",), "train.log_every": 1, "train.steps": 30}
    at_step(step, interrupt)
    with pytest.raises(Interrupted):
        go(changes)
    log = Run("toy").path / "log.csv"
    process = begin_or_go_on(small_run_config(folder, changes | {"model.vocab_size": 24}))
    wait_until(process, lambda: log.read_text().count("\n") > step + 5)
    kill(process)
    run = train_run(Run("toy").config, run=Run("toy"), console=QUIET)
    assert_same_numbers(events(run), run.log())
    assert run.log().step.tolist() == list(range(1, 31))
    assert list(texts(events(run), "samples")) == [12, 24, 30]
    assert len(list((run.path / "tensorboard").iterdir())) == 3


@pytest.mark.slow
def test_a_run_without_trackers_imports_none(folder, tmp_path):
    save_config(small_run_config(folder, {"train.steps": 1}), tmp_path / "config.json")
    code = ("import sys, train; sys.argv[1:] = ['--config', sys.argv[1]]; train.main(); "
            "print(sorted({'wandb', 'tensorboard'} & set(sys.modules)))")
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "config.json")], text=True, capture_output=True,
                          env=os.environ | {"SHAPESHIFTER_MODELS": str(tmp_path / "models")}, check=True,
                          cwd=Path(trackers.__file__).parent.parent)
    assert said.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_package_that_is_missing_is_named_with_its_command_before_anything_is_made(go, models, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"^train.trackers={name} needs .*: pip install {name}$"):
        go({"train.trackers": (name,)})
    assert not models.exists()


def test_trackers_change_no_bit(go, reference):
    run = go({"train.trackers": ("tensorboard",)})
    assert_same_run(run, reference)


# ---- Weights & Biases ----


def whole_records(path: Path) -> list:
    """The records of an offline run when its last is there: another process writes them."""
    until = time.monotonic() + 60
    while not any(record.HasField("exit") for record in records(path)):
        assert time.monotonic() < until
        time.sleep(0.02)
    return records(path)


def records(path: Path) -> list:
    """The records written so far: LevelDB's log format after seven bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block is padding
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place: place + 7])
        if place + 7 + length > len(data):  # its end is still being written
            break
        parts += data[place + 7: place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(run: Run) -> pd.DataFrame:
    """What all sittings sent, in their order; indexed by step."""
    rows = []
    for path in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        for record in whole_records(path):
            if record.HasField("history"):
                items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                         for item in record.history.item}
                rows.append({"step": record.history.step.num} | items)
    return pd.DataFrame(rows).set_index("step")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Weights & Biases without a network, its own folders among the test's."""
    monkeypatch.setenv("WANDB_MODE", "offline")  # the library reads it once in a process
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.slow
@NEEDS_WANDB
def test_wandb_is_told_the_log_each_step_once_also_of_a_run_that_goes_on(go, at_step, offline):
    at_step(17, interrupt)
    with pytest.raises(Interrupted):
        go({"train.trackers": ("tensorboard", "wandb"), "sample.prompts": ("the fox",)})
    shutil.rmtree(Run("toy").path / "checkpoints" / "step_00000017")  # step 16 is taken again, as after a kill
    time.sleep(1)  # wandb names a sitting's folder by the second
    run = train_run(Run("toy").config, run=Run("toy"), console=QUIET)
    sent, log = history(run), run.log().set_index("step")
    assert sent.index.tolist() == log.index.tolist()
    timed = list(TIMED)  # those of step 16 are of its first time
    pd.testing.assert_frame_equal(sent[log.columns].drop(columns=timed), log.drop(columns=timed), check_exact=True,
                                  check_dtype=False)
    tables = list(run.path.glob("wandb/offline-run-*/files/media/table/*.json"))
    written = [tuple(row) for table in tables for row in json.loads(table.read_text())["data"]]
    assert sorted(written) == sorted((s["prompt"], s["text"]) for s in run.samples())
    assert len(list(run.path.glob("wandb/offline-run-*/files/media/images/*.png"))) == 1
    identity, *steps = (run.path / "wandb.txt").read_text().split()
    assert len(list(run.path.glob(f"wandb/offline-run-*-{identity}"))) == 2
    assert list(map(int, steps)) == log.index.tolist()
    assert_same_numbers(events(run), run.log())


@NEEDS_WANDB
@pytest.mark.slow
def test_wandb_knows_the_configuration(go, offline):
    run = go({"train.trackers": ("wandb",), "train.steps": 1})
    (path,) = run.path.glob("wandb/offline-run-*/*.wandb")
    (started,) = (record.run for record in whole_records(path) if record.HasField("run"))
    told = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert {name: told[name] for name in to_dict(run.config)} == json.loads(json.dumps(to_dict(run.config)))
    assert (started.project, started.display_name) == ("shapeshifter", "toy")


@NEEDS_WANDB
def test_wandb_without_a_login_is_a_sentence(go, offline, monkeypatch):
    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"^train.trackers=wandb cannot begin \(No API key configured. Use "
                                         ".*WANDB_MODE=offline, and go on with --resume toy$"):
        go({"train.trackers": ("wandb",), "train.steps": 1})
