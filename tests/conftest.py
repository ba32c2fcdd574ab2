"""One thread, no network, and the same random examples each time: any order and machine, same result.

Many tests need no torch, so nothing here imports it until a fixture needs it.
"""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from programs import Program
from rich.console import Console

os.environ["HF_HUB_OFFLINE"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore, and what they start
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run also the cases that are marked as thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """What is there before the first test stays: the garbage collector need not go through it again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(scope="session")
def one_thread():
    """torch, on one thread."""
    import torch

    torch.set_num_threads(1)
    if not torch.cuda.is_available():  # torch notes the stack of each call, to seed later GPUs: 3 ms of each test
        torch.manual_seed = torch.default_generator.manual_seed
    return torch


@pytest.fixture(scope="session")
def blank_curves(one_thread):
    """No run in this process draws its loss curve, which takes as long as its steps: the picture is blank."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.report.draw_loss", lambda runs: Figure(figsize=(8, 4.5)))
        yield


@pytest.fixture(scope="session")
def predict_memory(blank_curves):
    """Budget.of, which predicts a run's memory. No run in this process calls it: many tests count what a run calls."""
    from memory_prediction.budget import Budget

    of = Budget.of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Budget, "of", lambda *_, **__: None)
        yield of


@pytest.fixture(scope="session", autouse=True)
def _where_imported(request):
    """The same for tests whose files import torch and train themselves."""
    for module, fixture in (("torch", "one_thread"), ("train", "predict_memory")):
        if module in sys.modules:
            request.getfixturevalue(fixture)


@pytest.fixture(autouse=True)
def _seed():
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def predicted(monkeypatch, predict_memory):
    """The memory of runs is predicted, as it is for users."""
    monkeypatch.setattr("memory_prediction.budget.Budget.of", predict_memory)


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch):
    """No program says that the machine is busy, whatever else runs beside the tests."""
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


# ---- runs ----


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of runs for each test."""
    monkeypatch.setattr("runs.MODELS", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The text and its cache, shared by a file's tests."""
    return tmp_path_factory.mktemp("shared")


def train_small(folder: Path, changes: dict | None = None, **options):
    """Train with changes to the small configuration; the run."""
    from small_runs import small_run_config

    import train

    return train.train(small_run_config(folder, changes), **{"console": QUIET} | options)


@pytest.fixture(scope="module")
def reference(folder, predict_memory):
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runs.MODELS", folder / "models")
        return train_small(folder)


@pytest.fixture
def go(folder, predict_memory):
    """Train with changes to the reference's configuration."""
    return lambda changes=None, **options: train_small(folder, changes, **options)


@pytest.fixture
def call(monkeypatch, capfd):
    """A program in this process, by its function main: (exit status, standard output, standard error)."""
    def run(main: Callable[[], object], *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def command(call, predict_memory):
    """`python train.py ...` in this process."""
    import train

    return lambda *words: call(train.main, *words)


@pytest.fixture
def at_step(monkeypatch):
    """Do something at a step, after its gradient and before its update: at_step(7, act) calls act(model)."""
    import training.step

    clip = training.step.clip

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
    """Start `python train.py ...` as a process of its own, or as a fork of this one, which is quicker."""
    started = []

    def run(*words: str, forked: bool = False) -> subprocess.Popen | Program:
        def program() -> None:
            sys.argv = ["train.py", *words]
            sys.modules["train"].main()

        environment = {"SHAPESHIFTER_MODELS": str(models), "OMP_NUM_THREADS": "1"}
        started.append(Program(program, environment) if forked else subprocess.Popen(
            [sys.executable, ROOT / "train.py", *words], env=os.environ | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()
