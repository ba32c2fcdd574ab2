"""One thread, no network, and the same random examples each time: any order and machine, same result."""

import os
import signal
import subprocess
import sys
from itertools import count

import pytest
import torch
from hypothesis import settings
from rich.console import Console
from small_runs import small_run_config

import runs
import train
import training.step
from training.step import clip

os.environ["HF_HUB_OFFLINE"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore, and what they start
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


PREDICT = train.Budget.of


@pytest.fixture(scope="session", autouse=True)
def unpredicted():
    """No run in this process is rehearsed for its memory: many tests count, stop or spoil what a run calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Budget, "of", lambda *_, **__: None)
        yield


@pytest.fixture
def predicted(monkeypatch):
    """Runs are rehearsed, as they are for users."""
    monkeypatch.setattr(train.Budget, "of", PREDICT)


# ---- runs ----


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of runs for each test."""
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The text and its cache, shared by a file's tests."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def reference(folder):
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", folder / "models")
        return train.train(small_run_config(folder), console=QUIET)


@pytest.fixture
def go(folder):
    """Train with changes to the reference's configuration."""
    return lambda changes=None, **options: train.train(
        small_run_config(folder, changes), **{"console": QUIET} | options)


@pytest.fixture
def command(monkeypatch, capfd):
    """`python train.py ...` in this process: (exit status, standard output, standard error)."""
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        status = 0
        try:
            train.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def at_step(monkeypatch):
    """Do something at a step, after its gradient and before its update: at_step(7, act) calls act(model)."""
    def plan(step: int, act) -> None:
        steps = count(1)

        def clip_and_act(model, limit):
            norm = clip(model, limit)
            if next(steps) == step:
                act(model)
            return norm

        monkeypatch.setattr(training.step, "clip", clip_and_act)

    return plan


@pytest.fixture
def start(models):
    """Start `python train.py ...` as a process of its own."""
    started = []

    def run(*words: str) -> subprocess.Popen:
        environment = os.environ | {"SHAPESHIFTER_MODELS": str(models), "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([sys.executable, train.__file__, *words], env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()
