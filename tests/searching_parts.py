"""Searches for the tests: a tiny space, what stands for memory.predict and train.main, and a search as a program."""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from fresh_process import child_baseline_bytes
from optuna.storages.journal import JournalFileBackend
from programs import Program
from small_runs import small_run_config

import train
from config import Config, save_config
from experiments.processes.signals import Stopped
from experiments.searching import shared, studies
from experiments.searching.loop import search
from experiments.searching.options import Options
from memory_prediction.baseline import baseline_bytes
from memory_prediction.process import choose_allocator

MB = 10**6
SPACE = {"model.dim": [16, 24, 32, 64], "train.lr": {"float": [1e-3, 1e-1], "log": True}, "train.batch_size": [2, 4]}
QUICK = {"train.name": None, "train.graded_stories": 0, "train.steps": 10, "train.sample_every": 100,
         "sample.num_samples": 1, "sample.max_new_tokens": 2}


# ---- the parts ----


@dataclass
class Predicted:
    """What a prediction has that the search reads."""

    low_bytes: int
    high_bytes: int


def by_width(cfg: Config, *, device: str = "cpu") -> Predicted:
    """10 MB for each channel; refuses 28 of them."""
    if cfg.model.dim == 28:
        raise ValueError("model.dim=28 does not suit: use another")
    return Predicted(10 * MB * cfg.model.dim, 20 * MB * cfg.model.dim)


def by_batch(cfg: Config, *, device: str = "cpu") -> Predicted:
    """400 MB for each row of the batch."""
    return Predicted(400 * MB * cfg.train.batch_size, 800 * MB * cfg.train.batch_size)


def slow(cfg: Config, *, device: str = "cpu") -> Predicted:
    """The same after two seconds."""
    time.sleep(2)
    return by_width(cfg)


def killing(cfg: Config, *, device: str = "cpu") -> Predicted:
    """Kills the process that predicts where the model is 64 wide."""
    if cfg.model.dim == 64:
        os.kill(os.getpid(), signal.SIGKILL)
    return by_width(cfg)


def greedy() -> None:
    """Training that takes 1.5 GB where the model is 32 wide, no faster than a watchdog can see."""
    if json.loads(Path(sys.argv[2]).read_text())["model"]["dim"] == 32:
        held = bytearray(1500 * MB)
        for begin in range(0, len(held), 10 * MB):
            held[begin : begin + 10 * MB : 4096] = b"x" * len(range(0, 10 * MB, 4096))
            time.sleep(0.005)
        time.sleep(60)
    train.main()


def endless() -> None:
    """Training that never ends where the model is 32 wide."""
    if json.loads(Path(sys.argv[2]).read_text())["model"]["dim"] == 32:
        time.sleep(600)
    train.main()


def endless_once() -> None:
    """Training that never ends the first time that a width comes; it leaves its number in a file."""
    dim = json.loads(Path(sys.argv[2]).read_text())["model"]["dim"]
    mark = Path(os.environ["SHAPESHIFTER_MODELS"]).parent / f"pid-{dim}"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(600)
    train.main()


def telling() -> None:
    """Training that says in a file which GPUs it sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    (Path(os.environ["SHAPESHIFTER_MODELS"]).parent / f"sees-{os.getpid()}").write_text(str(seen))
    train.main()


def raising() -> None:
    """Training that fails where the model is 32 wide."""
    if json.loads(Path(sys.argv[2]).read_text())["model"]["dim"] == 32:
        raise RuntimeError("nobody expected this")
    train.main()


# ---- searches ----


def room(megabytes: int, processes: int = 1, *, fresh: bool = False) -> str:
    """A limit under which so many processes can take so much together, beside what each holds before it trains."""
    idle = child_baseline_bytes() if fresh else int(finish(Program(lambda: print(idle_bytes()), {}))[1])
    return f"{processes * idle // MB + megabytes}MB"


def idle_bytes() -> int:
    """What this process holds before it trains, as the one that predicts measures it."""
    choose_allocator("tight")
    return baseline_bytes()


def write_space(folder: Path, search: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> Path:
    """A space on a tiny base with changes; its runs take a second."""
    save_config(small_run_config(folder, QUICK | (changes or {})), folder / "base.json")
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({"base": str(folder / "base.json"), "search": search or SPACE}))
    return path


def start(folder: Path, *, trainer: str = "train:main", predictor: str = "searching_parts:by_width",
          fresh: bool = False, **options: Any) -> Program:
    """A search as a process of its own, by default of three trials that may take 540 MB.

    One that goes on in a folder has the limit that it was begun with.
    """
    options = {"space": folder / "toy.yaml", "trials": 3} | options
    if "ram_limit" not in options:
        limit = folder / "ram_limit.txt"
        if not limit.exists():
            limit.write_text(room(540, fresh=fresh))
        options["ram_limit"] = limit.read_text()
    environment = {"SHAPESHIFTER_MODELS": str(folder / "models"), "SHAPESHIFTER_RESULTS": str(folder / "results"),
                   "OMP_NUM_THREADS": "1"}
    return Program(lambda: search_as(options, trainer, predictor), environment, fresh=fresh)


def finish(process: Program) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a search that ends by itself."""
    said, errors = process.communicate(timeout=300)
    return process.returncode, said, errors


def study(folder: Path, name: str = "toy") -> optuna.Study:
    """The study as it is on the disk."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "results" / name / "journal.log")))
    return optuna.load_study(study_name=name, storage=storage)


def wait_for(folder: Path, sign, *, seconds: float = 100) -> Any:
    """What `sign(study)` gives, as soon as that is something; the study may not be there yet."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(KeyError, FileNotFoundError, ValueError):
            if found := sign(study(folder)):
                return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def outcomes(study: optuna.Study) -> list[str]:
    return [trial.user_attrs.get("outcome", trial.state.name) for trial in study.trials]


def search_as(options: dict[str, Any], trainer: str, predictor: str) -> None:
    """Search, in this process."""
    if grace := os.environ.get("GRACE_SECONDS"):
        studies.GRACE_SECONDS, studies.HEARTBEAT_SECONDS, shared.HEARTBEAT_SECONDS = int(grace), 1, 1
    try:
        search(Options(**options), trainer=trainer, predictor=predictor)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_status) from None
