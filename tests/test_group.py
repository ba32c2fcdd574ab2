"""Several processes train one run: it is the run of one process, to rounding, however many there are."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, partialmethod
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import psutil
import pytest
import torch
from programs import Program
from small_runs import assert_same_run, content, small_run_config, untimed_log, weights
from thorough import some
from torch import distributed
from torch.utils._pytree import tree_map_only

from config import Config, override, save_config
from modules.across import full
from run_store import checkpoint_files
from run_store.listing import DIVERGED
from run_store.parts import Part
from runs import Run
from train import train
from training.group import met_in, size_of_group
from training.saving import Saver
from training.snapshot import Frozen, Snapshot
from training.stopping import follow_parent

ROOT = Path(__file__).resolve().parent.parent
# Muon rounds to bfloat16, where differences of 1e-7 grow; the attention of a run of the tests drops weights
EXACT = {"train.optimizer": "adamw", "train.lr": 1e-3, "model.attention.dropout": 0.0, "model.residual_dropout": 0.0}
CASES = {
    "default": {},
    "experts": {"model.mlp": "moe", "model.moe.num_experts": 4, "model.moe.balance_loss": 0.01,
                "model.moe.router_z_loss": 0.01, "model.moe.balance_bias": True},
    "hybrid": {"model.layers": ("gated_delta", "attention"), "train.checkpoint_activations": True},
    "passes": {"train.accumulation": 3, "train.log_noise_scale": True, "train.log_grad_norms": True,
               "train.ema_decay": 0.9},
    "masked": {"train.objective": "masked"},  # as many targets as are drawn, another number in each process
    "masked_diffusion": {"train.objective": "masked_diffusion"},
    "block_diffusion": {"train.objective": "block_diffusion", "train.diffusion.weight": "bound"},
    "multi_token": {"train.objective": "multi_token", "model.ahead": "heads", "model.ahead_depth": 2},
    "fill_in_the_middle": {"train.objective": "fill_in_the_middle"},
}


def train_with(words: Sequence[str]) -> None:
    """`train.py WORDS`."""
    sys.argv = ["train.py", *words]
    sys.modules["train"].main()


def begin(size: int, program: Callable[[], object], models: Path, port: int) -> list[Program]:
    """What torchrun, which keeps a store, begins with --nproc-per-node SIZE; each process is a fork of this one."""
    shared = {"SHAPESHIFTER_MODELS": str(models), "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "test",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
              "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return [Program(program, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(size)]


@contextlib.contextmanager
def new_store() -> Iterator[int]:
    """The port of a store, as torchrun has one, until the end of the block.

    It is in a process of its own: a fork of a process whose threads hold a lock would wait for it forever.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        store = Program(partial(keep_store, listening), {})
        port = listening.getsockname()[1]
    try:
        yield port
    finally:
        store.kill()


def keep_store(listening: socket.socket) -> None:
    follow_parent(signal.SIGKILL)
    port = listening.getsockname()[1]
    _store = distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False,
                                  master_listen_fd=listening.detach())
    signal.pause()


@pytest.fixture
def together(models, predict_memory):
    """Train a run with so many processes: (exit statuses, standard output and error of each)."""
    begun = []

    def run(size: int, *words: str) -> tuple[list[int], list[tuple[str, str]]]:
        with new_store() as port:
            begun.extend(programs := begin(size, partial(train_with, words), models, port))
            said = [program.communicate(100) for program in programs]
        return [program.returncode for program in programs], said

    yield run
    for program in begun:
        program.kill()


@pytest.fixture
def begun(folder, tmp_path):
    """The words that begin a run of a configuration."""
    def words(changes: dict[str, Any], name: str) -> list[str]:
        save_config(cfg_of(folder, changes, name), tmp_path / f"{name}.json")
        return ["--config", str(tmp_path / f"{name}.json")]

    return words


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def cfg_of(folder: Path, changes: dict[str, Any], name: str) -> Config:
    return override(small_run_config(folder, EXACT | {"train.log_every": 1} | changes), {"train.name": name})


def assert_near(run: Run, expected: Run, within: float = 1e-5) -> None:
    """The same log and weights to rounding, and the same number of targets."""
    ours, theirs = untimed_log(run), untimed_log(expected)
    assert list(ours) == list(theirs) and ours.tokens.equals(theirs.tokens) and ours.step.equals(theirs.step)
    counts = ["accuracy", "max_load"] if within > 1e-3 else []  # one token more or less
    for column in theirs.columns.drop(counts, errors="ignore"):
        loose = 1e-3 if column.startswith("grad_") or column == "noise_scale" else within  # rounding grows
        np.testing.assert_allclose(ours[column], theirs[column], rtol=loose, atol=loose, err_msg=column)
    own, other = weights(run), weights(expected)
    assert own.keys() == other.keys()
    assert all(torch.allclose(own[name], other[name], rtol=1e-3, atol=max(1e-3, within)) for name in own)


SHARDED = {
    **CASES, **{name: {"train.optimizer": name} for name in ("muon", "lion", "sgd", "adam")},
    "schedule_free": {"train.optimizer": "schedule_free", "train.schedule": "constant"},
    "stacked": CASES["experts"] | {"train.optimizer": "muon"},
    "unit_weights": {"model.unit_weights": True, "model.out_init": "same", "model.head_zero_init": False},
    "looped": {"model.stack": "hrm", "model.num_layers": 2}, "tied": {"model.tie_embeddings": True},
}


@pytest.mark.parametrize("case", SHARDED)
def test_two_processes_with_half_the_weights_each_train_the_run_of_one(case, together, begun, folder, models):
    train_alone(folder, SHARDED[case])
    statuses, said = together(2, *begun(SHARDED[case] | {"train.shard": True}, "two"))
    assert statuses == [0, 0], said
    assert_near(Run("two"), Run("one"), within=1e-2 if SHARDED[case].get("train.optimizer") == "muon" else 1e-5)
    assert said[1] == ("", "") and said[0][1] == "" and said[0][0].count("\nloss curve: ") == 1
    assert (Run("two").path / "loss.png").exists() and Run("two").samples()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_run_of_one(case, together, begun, folder, models):
    train_alone(folder, CASES[case])
    statuses, said = together(2, *begun(CASES[case], "two"))
    assert statuses == [0, 0], said
    assert_near(Run("two"), Run("one"))
    assert said[1] == ("", "") and said[0][1] == "" and said[0][0].count("\nloss curve: ") == 1
    assert (Run("two").path / "loss.png").exists() and Run("two").samples()


def train_alone(folder: Path, changes: dict[str, Any]) -> Run:
    from conftest import QUIET

    return train(cfg_of(folder, changes, "one"), console=QUIET)


@pytest.mark.parametrize("changes", some([
    {"train.ema_decay": 0.9, "model.tie_embeddings": True},
    CASES["experts"] | {"train.optimizer": "schedule_free", "train.schedule": "constant"}], 2))
def test_sharded_checkpoints_are_those_of_whole_states_also_while_training_goes_on(
        changes, together, begun, models, monkeypatch):
    changes, write = changes | {"train.shard": True, "train.keep_checkpoints": 9}, checkpoint_files.write_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", partialmethod(save_and_gather, Saver.save, models))
        assert together(2, *begun(changes, "expected"))[0] == [0, 0]
    assert [saved.step for saved in Run("expected").checkpoints()] == [6, 12, 18, 24]
    for saved in Run("expected").checkpoints():
        assert content(saved.path) == content(models / f"gathered-{saved.step}"), saved.path

    def write_late(*args):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.3)
            (models / f"late-{args[3].step}").touch()
        write(*args)

    monkeypatch.setattr("train.Saver", lambda *args, copies: Saver(*args, copies=True))
    monkeypatch.setattr(checkpoint_files, "write_checkpoint", write_late)
    assert together(2, *begun(changes, "toy")) == ([0, 0], ANY)
    assert {path.name for path in models.glob("late-*")} == {"late-6", "late-12", "late-18"}
    for ours, theirs in zip(Run("toy").checkpoints(), Run("expected").checkpoints(), strict=True):
        for name in ("model.safetensors", "optimizer.pt", *(path.name for path in theirs.path.glob("ema.*"))):
            assert (ours.path / name).read_bytes() == (theirs.path / name).read_bytes(), (ours.path, name)


def save_and_gather(saver: Saver, save: Callable[..., None], models: Path, **how: Any) -> None:
    """Save a sharded run; then gather its state in the first process, which writes it as one process does."""
    save(saver, **how)
    state, gathered = saver.state, {}
    model, average, optimizer = tree_map_only(
        torch.Tensor, lambda x: gathered.setdefault(id(x), full(x.detach()).clone()), [
            state.model.state_dict(keep_vars=True), state.average and state.average.model.state_dict(keep_vars=True),
            state.optimizer.state_dict()])
    for options in (group for part in optimizer for group in part.get("param_groups", ())):
        options |= {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
    if state.group.is_first:
        (folder := models / f"gathered-{saver.progress.step}").mkdir()
        checkpoint_files.write_checkpoint(
            folder, Frozen(model), Frozen(optimizer), saver.progress, average and Frozen(average))


def within_second_save(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None], *, rank: int) -> None:
    """Do something in one process before its second checkpoint has the tensor of this number, from 1."""
    saves, numbers, parts_of, whole = count(1), iter(()), Snapshot.parts, Part.whole

    def parts(snapshot: Snapshot) -> list[Part]:
        nonlocal numbers
        numbers = count(1) if next(saves) == 2 and os.environ["RANK"] == str(rank) else iter(())
        return parts_of(snapshot)

    def act_and_put_together(part: Part) -> torch.Tensor:
        if next(numbers, None) == number:
            act()
        return whole(part)

    patch.setattr(Snapshot, "parts", parts)
    patch.setattr(Part, "whole", act_and_put_together)


IN_WEIGHTS, IN_OPTIMIZER = 7, 40  # numbers of tensors


@pytest.mark.parametrize(("number", "copies"), some([(IN_OPTIMIZER, True), (IN_WEIGHTS, False)], 2))
def test_a_disk_that_is_full_halfway_through_a_sharded_checkpoint_costs_that_one_alone(
        number, copies, together, begun, models, monkeypatch):
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.Saver", lambda *args, **_: Saver(*args, copies=copies))
    within_second_save(monkeypatch, number, refuse, rank=0)
    statuses, said = together(2, *begun({"train.shard": True, "train.keep_checkpoints": 9}, "toy"))
    refused = models / "toy" / "checkpoints" / "step_00000012"
    assert statuses == [0, 0] and said[1] == ("", ""), said
    assert said[0][1].startswith(f"warning: {refused} cannot be written ([Errno 28]") and said[0][1].count("\n") == 1
    assert [(saved.step, saved.problem()) for saved in Run("toy").checkpoints()] == [(6, None), (18, None), (24, None)]


@pytest.mark.parametrize("copies", some([True, False], 2))
def test_a_kill_within_a_sharded_checkpoint_leaves_the_one_before(copies, together, begun, models, folder, monkeypatch):
    """The first process is killed in the checkpoint of step 12; when the run has gone on the other, in that of 18."""
    monkeypatch.setattr("train.Saver", lambda *args, **_: Saver(*args, copies=copies))
    words = [*begun({"train.shard": True}, "other"), "--resume-or-begin", "toy"]
    for rank, number, newest in ((0, IN_WEIGHTS, 6), (1, IN_OPTIMIZER, 12)):
        with pytest.MonkeyPatch.context() as patch:
            within_second_save(patch, number, lambda: os.kill(os.getpid(), signal.SIGKILL), rank=rank)
            statuses, said = together(2, *words)
        assert statuses[rank] == -signal.SIGKILL and statuses[1 - rank] == 1
        assert "Traceback" not in said[0][1] + said[1][1]
        assert Run("toy").checkpoint("last").step == newest and Run("toy").checkpoint("last").problem() is None
    assert together(2, *words)[0] == [0, 0]
    assert_near(Run("toy"), train_alone(folder, {}))


@pytest.mark.parametrize(("error", "sentence", "has_trace"), [
    (ValueError("no room\nat all"), "no room", False), (KeyError(), "KeyError", True)])
def test_an_error_of_one_process_is_told_with_its_rank(
        error, sentence, has_trace, together, begun, models, at_step, monkeypatch):
    def fail(_) -> None:
        if int(os.environ["RANK"]) == 1:
            raise error

    monkeypatch.setattr("training.failing.SOON", 0.1)
    at_step(8, fail)
    statuses, said = together(2, *begun({}, "toy"))
    assert statuses == [1, 1 if has_trace else 2]
    assert said[0][1] == "error: another process of the run has ended; what was saved is kept: --resume toy\n"
    lines = said[1][1].splitlines()
    assert lines[0] == f"error: rank 1 of 2 processes: {sentence}" and (len(lines) > 1) == has_trace
    assert Run("toy").checkpoint("last").step == 6


def test_what_layers_drop_follows_from_the_seed_and_the_number_of_processes(together, begun, models):
    dropped = {"model.attention.dropout": 0.2}
    for name in ("two", "again"):
        assert together(2, *begun(dropped, name))[0] == [0, 0]
    assert_same_run(Run("two"), Run("again"))


@pytest.mark.parametrize("shard", [False, True])
def test_a_run_goes_on_with_more_or_fewer_processes(shard, together, begun, folder, models, at_step):
    """Four processes, one of which is told to stop; then one; then two, one of which is killed; then two.

    All by the same command.
    """
    changes = {"train.ema_decay": 0.9, "train.shard": shard}
    expected, words = train_alone(folder, changes), [*begun(changes, "other"), "--resume-or-begin", "toy"]
    at_step(8, tell(signal.SIGTERM, rank=3))
    statuses, said = together(4, *words)
    assert statuses == [143] * 4 and said[0][1].startswith("stopped after step 8, which is saved; go on with: ")
    assert all(other == ("", "") for other in said[1:])
    at_step(3, tell(signal.SIGTERM, rank=0))
    assert together(1, *words)[0] == [143] and Run("toy").checkpoint("last").step == 11
    at_step(10, tell(signal.SIGKILL, rank=1))
    statuses, said = together(2, *words)
    assert statuses == [1, -signal.SIGKILL]
    assert said[0][1] == "error: another process of the run has ended; what was saved is kept: --resume toy\n"
    assert Run("toy").checkpoint("last").step == 18
    at_step(100, tell(signal.SIGTERM, rank=0))
    assert together(2, *words)[0] == [0, 0]
    assert together(1, *words)[1][0][0] == "toy is finished: all 24 steps are taken\n"
    assert_near(Run("toy"), expected)


def tell(number: int, *, rank: int):
    def act(_) -> None:
        if int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), number)

    return act


def test_a_run_that_diverges_ends_in_all_processes(together, begun, models):
    statuses, said = together(2, *begun({"train.lr": 1e30, "train.grad_clip": None, "train.optimizer": "sgd"}, "toy"))
    assert statuses == [1, 1] and said[0][1].startswith("error: step ") and said[1] == ("", "")
    assert said[0][1].startswith(f"error: {(models / 'toy' / DIVERGED).read_text()}")


@pytest.mark.parametrize(("changes", "words", "sentence"), [
    ({"train.batch_size": 5}, (), "train.batch_size=5 cannot be shared by 2 processes: use a multiple"),
    ({}, ("--seeds", "2"), "--seeds trains one run after another, each in one process: leave out torchrun"),
])
def test_a_mistake_is_told_once(changes, words, sentence, together, begun, models):
    statuses, said = together(2, *begun(changes, "toy"), *words)
    assert statuses == [2, 2] and said == [("", f"error: {sentence}\n"), ("", "")]
    assert not models.exists()


def test_processes_that_are_started_again_do_not_meet_those_that_died():
    store = distributed.HashStore()
    for attempt in range(3):
        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(lambda rank: met_in(store, rank, 3), (2, 1, 0)))
        assert not any(part.check(["address"]) for part in parts), attempt
        parts[0].set("address", "of a process that dies")
        assert all(part.check(["address"]) for part in parts)


def test_a_process_whose_torchrun_was_killed_ends(together, begun, models, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "new_store", lambda: contextlib.nullcontext(free_port()))
    statuses, said = together(2, *begun({}, "toy"))
    assert statuses == [1, 1] and said == [("", "error: torchrun has ended\n"), ("", "")] and not models.exists()


@pytest.mark.slow
def test_torchrun_starts_them_again_when_one_is_killed(folder, models, begun):
    assert size_of_group() == 1
    changes = {"train.steps": 60, "train.checkpoint_every": 5}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--max-restarts", "3", "train.py", *begun(changes, "two"), "--resume-or-begin", "two"]
    torchrun = psutil.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"SHAPESHIFTER_MODELS": str(models), "OMP_NUM_THREADS": "1"})
    while torchrun.poll() is None and not list(models.glob("two/checkpoints/*")):
        time.sleep(0.01)
    torchrun.children()[-1].kill()
    out, err = torchrun.communicate()
    assert torchrun.returncode == 0 and "Traceback" not in err and "going on after step " in out, err
    train_alone(folder, changes)
    assert_near(Run("two"), Run("one"))
