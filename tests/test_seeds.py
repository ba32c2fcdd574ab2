"""`python train.py --seeds N`: each run is the one that its seed gives alone, whatever ended the command meanwhile."""

import os
import signal
import statistics
import sys
import time

import pytest
import torch
from programs import Program
from small_runs import assert_same_run, content, small_run_config

import runs
import train
from config import save_config
from runs import Run, is_finished, is_there

pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture
def seeds(command, folder, tmp_path, monkeypatch):
    """`python train.py --seeds N ...`, whose runs are forks of this process: they start at once."""
    def fork(words: list[str], *, env: dict[str, str], **_) -> Program:
        def program() -> None:
            sys.argv = words[1:]
            train.main()

        return Program(program, env)

    monkeypatch.setattr("training.seeds.Popen", fork)
    save_config(small_run_config(folder, {"train.steps": 12}), tmp_path / "config.json")
    return lambda count, *words: command("--config", str(tmp_path / "config.json"), "--seeds", str(count), *words)


def in_the_second_run(act):
    """Do something in the process of the second run only."""
    return lambda model: act(model) if is_there("toy-seed-1") and not is_there("toy-seed-2") else None


def interrupt_the_command(_) -> None:
    """Ctrl-C in the process that waits for this one, until this one has heard of it."""
    heard, note = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *what: (heard.append(what), note(*what)))
    os.kill(os.getppid(), signal.SIGINT)
    while not heard:
        time.sleep(0.01)


def test_interrupted_and_continued_each_run_is_that_of_its_seed_alone(seeds, go, at_step):
    at_step(5, in_the_second_run(interrupt_the_command))
    status, _, errors = seeds(3)
    assert (status, errors) == (130, "stopped by SIGINT; the same command goes on with what is missing\n")
    assert is_finished("toy-seed-0") and Run("toy-seed-1").checkpoint("last").step == 5 and not is_there("toy-seed-2")
    first = content(Run("toy-seed-0").path)
    at_step(100, print)  # never
    status, said, errors = seeds(3)
    assert (status, errors) == (0, "")
    assert "run 1 of 3: toy-seed-0, which has finished\nrun 2 of 3: toy-seed-1\n" in said
    assert content(Run("toy-seed-0").path) == first
    for seed in (1, 2):
        alone = go({"train.name": f"alone-{seed}", "train.seed": seed, "train.steps": 12})
        assert_same_run(Run(f"toy-seed-{seed}"), alone)
    ends = [Run(f"toy-seed-{seed}").log().iloc[-1] for seed in range(3)]
    spread = statistics.stdev(end.val_loss for end in ends)
    assert (f"toy, seeds 0, 1, 2, mean ± standard deviation (± standard error): val loss "
            f"{sum(end.val_loss for end in ends) / 3:.4f} ± {spread:.4f} (± {spread / 3**0.5:.4f}), bits/byte ") in said
    assert "python experiments/compare.py toy-seed-0 toy-seed-1 toy-seed-2" in said


def test_a_name_that_another_run_has_is_refused_before_anything_is_trained(seeds, go, models):
    go({"train.name": "toy-seed-1", "train.seed": 1, "train.steps": 12, "train.lr": 0.02})
    status, _, errors = seeds(2)
    assert (status, errors) == (2, "error: toy-seed-1 is there, and was trained with train.lr=0.02, not 0.01: choose "
                                   "another --train.name, or delete it\n")
    (models / "toy-seed-4").mkdir()
    status, _, errors = seeds(2, "--train.seed", "3")
    assert status == 2 and errors.startswith("error: train.name=toy-seed-4 is taken") and errors.count("\n") == 1
    assert runs.saved_runs() == ["toy-seed-1"]


def test_a_seed_that_diverges_does_not_count_and_the_others_are_trained(seeds, at_step):
    def spoil(model):
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)

    at_step(7, in_the_second_run(spoil))
    status, said, errors = seeds(3)
    assert (status, errors) == (1, "") and is_finished("toy-seed-2")
    assert "toy-seed-1 has diverged and does not count" in said and "toy, seeds 0, 2, mean" in said
    status, said, _ = seeds(3)
    assert status == 1 and "run 2 of 3: toy-seed-1, which has diverged\n" in said  # and is not tried again


def test_what_the_first_run_refuses_ends_the_command_with_its_status(seeds):
    assert seeds(2, "--data.separator", "@@")[0] == 2
    assert runs.saved_runs() == []


@pytest.mark.thorough
def test_the_program_trains_in_processes_of_its_own_that_give_the_same_bits(start, folder, tmp_path, reference):
    save_config(small_run_config(folder), tmp_path / "config.json")
    output, errors = (process := start("--config", str(tmp_path / "config.json"), "--seeds", "1")).communicate()
    assert (process.returncode, errors) == (0, "") and "toy, seed 0: val loss " in output
    assert_same_run(Run("toy-seed-0"), reference)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_command_that_is_killed_has_its_run_save_and_end(start, folder, tmp_path):
    long = {"train.steps": 10**6, "train.checkpoint_every": 10**6}
    save_config(small_run_config(folder, long), tmp_path / "config.json")
    process = start("--config", str(tmp_path / "config.json"), "--seeds", "2")
    wait_until(lambda: is_there("toy-seed-0") and (Run("toy-seed-0").path / "log.csv").exists())
    process.kill()
    wait_until(lambda: Run("toy-seed-0").checkpoints())
    assert not is_there("toy-seed-1")


def wait_until(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
