"""A checkpoint is written while training goes on: it is the one that would have been written at once."""

import math
import random
import threading
import time
from functools import partial
from itertools import pairwise

import pytest
import torch
from lives import assert_same_checkpoints, begin_or_go_on, interrupt, kill_somewhere
from small_runs import assert_same_run, small_run_config
from test_survival import Clock, at_steps
from thorough import some

import runs
import train
from config import override, save_config
from experiments.benchmarks import saving_stop
from memory_prediction import budget
from memory_prediction.budget import LEAST_GROWTH, Budget
from memory_prediction.prediction import predict
from model import Model
from run_store import checkpoint_files
from run_store.checkpoint_files import NotWritten
from runs import Run
from train import Interrupted
from training.saving import Diverged, Saver
from training.setup import prepare_run
from training.step import TrainState, is_finite
from training.stopping import Stop, Stopped

pytestmark = pytest.mark.usefixtures("models")
REFUSED = OSError(28, "No space left on device")


@pytest.fixture
def copying(monkeypatch):
    """Checkpoints are written in the background, as where memory is predicted and has room."""
    monkeypatch.setattr(train, "Saver", lambda *args, copies: Saver(*args, copies=True))


@pytest.fixture
def writing(copying, monkeypatch):
    """Do something in the thread that writes the checkpoint of a step, before it does: writing[6] = act.

    The last one, of step 24, is written by the main thread.
    """
    acts, write = {}, checkpoint_files.write_checkpoint

    def act_and_write(folder, model, optimizer, progress, *rest):
        in_background = threading.current_thread() is not threading.main_thread()
        acts.get(progress.step if in_background or progress.step == 24 else None, int)()
        write(folder, model, optimizer, progress, *rest)

    monkeypatch.setattr(checkpoint_files, "write_checkpoint", act_and_write)
    return acts


SAVED = {
    "muon": {}, "adamw": {"train.optimizer": "adamw"}, "soap": {"train.optimizer": "soap"},
    "two weights": {"train.optimizer": "schedule_free", "train.schedule": "constant", "train.lr": 0.003},
    "an average": {"train.ema_decay": 0.9, "model.tie_embeddings": True},
    "buffers": {"model.mlp": "moe", "model.moe.num_experts": 4, "model.moe.balance_bias": True, "train.accumulation": 2,
                "train.log_noise_scale": True},
}


@pytest.mark.parametrize("changes", SAVED.values(), ids=SAVED)
def test_what_training_changes_while_a_checkpoint_is_written_is_not_in_it(go, writing, monkeypatch, changes):
    """Three steps are taken before the first byte is written."""
    changes = changes | {"train.keep_checkpoints": 9}
    taken = {step: threading.Event() for step in (6, 12, 18)}
    writing.update({step: partial(later.wait, 60) for step, later in taken.items()})
    at_steps(monkeypatch, {step + 3: later.set for step, later in taken.items()})
    ours = go(changes)
    assert all(later.is_set() for later in taken.values())
    monkeypatch.undo()
    monkeypatch.setattr(runs, "MODELS", ours.path.parent)
    expected = go(changes | {"train.name": "expected"})
    assert_same_run(ours, expected)
    assert_same_checkpoints(ours, expected)
    for one, other in zip(ours.checkpoints(), expected.checkpoints(), strict=True):
        assert one.problem() is None
        for path in other.path.iterdir():
            if path.name not in ("progress.json", "SHA256SUMS"):  # which have the seconds
                assert (one.path / path.name).read_bytes() == path.read_bytes(), path


def test_a_save_waits_for_the_one_before_and_leaves_no_thread(go, writing, reference, monkeypatch):
    times, save = [], Run.save

    def timed(*args, **kwargs):
        began = time.monotonic()
        save(*args, **kwargs)
        times.append((began, time.monotonic()))

    monkeypatch.setattr(Run, "save", timed)
    writing.update(dict.fromkeys((6, 12, 18), partial(time.sleep, 0.2)))
    before = threading.active_count()
    run = go()
    assert len(times) == 4 and all(end <= begin for (_, end), (begin, _) in pairwise(times))
    assert threading.active_count() == before
    assert_same_run(run, reference)
    assert_same_checkpoints(run, reference)
    assert not list(run.path.rglob("*.tmp"))


def fail(*_) -> None:
    raise RuntimeError("a bug")


def spoil(model: Model) -> None:
    with torch.no_grad():
        model.embed.tokens.weight.fill_(math.nan)


LEAVE = {"an error": (fail, RuntimeError), "a signal": (interrupt, Interrupted), "a divergence": (spoil, Diverged),
         "two signals": (lambda model: (interrupt(), interrupt()), KeyboardInterrupt)}


@pytest.mark.parametrize("way", LEAVE)
def test_leaving_waits_for_what_is_being_written(go, writing, reference, at_step, way):
    act, error = LEAVE[way]
    writing[6] = partial(time.sleep, 0.5)
    at_step(7, act)
    with pytest.raises(error) as raised:
        go()
    run = Run("toy")
    assert run.checkpoints()[0].step == 6 and [saved.problem() for saved in run.checkpoints()][:1] == [None]
    assert not list(run.path.rglob("*.tmp"))
    if way == "a divergence":
        assert "the last good checkpoint is " in str(raised.value) and "step_00000006; a lower" in str(raised.value)
        assert (run.path / "diverged.txt").read_text() == f"{raised.value}\n"
    go(run=Run("toy"))
    assert_same_run(run, reference)
    assert_same_checkpoints(run, reference)


def refuse() -> None:
    raise REFUSED


def test_a_checkpoint_that_the_disk_refuses_is_told_at_the_next_one(go, writing, reference, capfd):
    writing[12] = refuse
    run = go()
    assert capfd.readouterr().err == (
        f"warning: {run.path / 'checkpoints' / 'step_00000012'} cannot be written ({REFUSED}): the newest checkpoint "
        "is that of step 6; training goes on, and tries the next one as usual\n")
    assert [saved.step for saved in run.checkpoints()] == [step.step for step in reference.checkpoints()]
    assert_same_run(run, reference)


def test_a_stop_saves_what_the_disk_has_refused_a_moment_ago(go, writing, monkeypatch, capfd):
    writing[6] = refuse
    save = Saver.save_if_due
    monkeypatch.setattr(Saver, "save_if_due",
                        lambda saver, events: (save(saver, events), events.checkpoint and interrupt()))
    with pytest.raises(Interrupted, match="stopped after step 6, which is saved"):
        go()
    said = capfd.readouterr().err
    assert said.endswith("there is no checkpoint yet\n") and said.count("\n") == 1
    assert [(saved.step, saved.problem()) for saved in Run("toy").checkpoints()] == [(6, None)]


@pytest.mark.parametrize("refused", [(24,), (18, 24)])
def test_a_last_checkpoint_that_the_disk_refuses_is_an_error(go, writing, refused, capfd):
    writing.update(dict.fromkeys(refused, refuse))
    newest = 18 if refused == (24,) else 12
    with pytest.raises(NotWritten, match=rf"step_00000024 cannot be written .*: the newest checkpoint is that of step "
                                         rf"{newest}; make room and go on with --resume toy$"):
        go()
    assert capfd.readouterr().err.count("step_00000018 cannot be written") == len(refused) - 1
    assert [saved.problem() for saved in Run("toy").checkpoints()] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("seed", some([0, 1, 2], 3))
def test_a_run_killed_while_its_checkpoints_are_written_is_the_run_left_alone(go, copying, folder, seed):
    changes, drawn = {"train.log_every": 1, "train.checkpoint_every": 5, "train.sample_every": 50}, random.Random(seed)
    cfg = small_run_config(folder, changes | {"train.steps": 60})
    for number in range(4):
        kill_somewhere(begin_or_go_on(cfg), 10 * number + drawn.randint(1, 8), drawn, in_a_save=number % 2 == 1)
    assert begin_or_go_on(cfg).wait() == 0
    whole = go(changes | {"train.steps": 60, "train.name": "whole"})
    assert_same_run(Run("toy"), whole)
    assert_same_checkpoints(Run("toy"), whole)


def test_a_time_limit_leaves_room_for_two_saves_while_one_goes_on(monkeypatch):
    clock = Clock(monkeypatch)
    stop, step_seconds, save_seconds = Stop(100.0), 2, 7
    with stop.save():
        clock.now += save_seconds
    with stop.save(), pytest.raises(Stopped):
        while True:
            stop.before_step()
            clock.now += step_seconds
            stop.after_step(step_seconds)
    assert clock.now + 2 * 1.5 * save_seconds <= 100 < clock.now + 1.5 * (step_seconds + 2 * save_seconds) + 2.1


def test_the_benchmark_measures_both_ways_of_saving(folder, tmp_path):
    setup = prepare_run(small_run_config(folder), torch.device("cpu"))
    save_config(setup.cfg, tmp_path / "config.json")
    run = Run(tmp_path)
    seconds = saving_stop.measure(setup, setup.make_state(), run, 2)
    assert len(seconds) == 2 and all(at_once > 0 and 0 < copied < written for at_once, copied, written in seconds)
    assert [saved.step for saved in run.checkpoints()] == [3, 4]


# ---- memory ----


@pytest.mark.parametrize("changes", [
    {"train.optimizer": "adamw", "train.ema_decay": 0.9}, {"train.optimizer": "muon"}, SAVED["two weights"]])
def test_a_checkpoint_is_predicted_to_hold_what_is_copied(folder, changes):
    cfg = override(small_run_config(folder, changes), {"model.vocab_size": 40})
    state = TrainState(Model(cfg.model), cfg.train)
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.train()
    state.optimizer.step()
    state.optimizer.eval()
    states = [state.model.state_dict(), state.average and state.average.model.state_dict(),
              state.optimizer.state_dict()]
    held = sum(leaf.nbytes for leaf in torch.utils._pytree.tree_leaves(states) if torch.is_tensor(leaf))
    assert predict(cfg).checkpoint_bytes == pytest.approx(held, rel=0.02)  # and the frequencies of positions
    deep = override(cfg, {"model.num_layers": 20})
    assert predict(deep).checkpoint_bytes > 5 * predict(cfg).checkpoint_bytes
    sharded = override(cfg, {"train.shard": True, "train.batch_size": 4})
    largest = max(parameter.nbytes for parameter in state.model.parameters())  # put together, one at a time
    assert predict(sharded, processes=2).checkpoint_bytes == predict(cfg).checkpoint_bytes // 2 + largest


@pytest.mark.parametrize(("beside", "copies"), [(-1, False), (0, True)])
def test_checkpoints_are_copied_only_where_the_copy_has_room(folder, predict_memory, monkeypatch, beside, copies):
    cfg, cpu = override(small_run_config(folder), {"model.vocab_size": 40}), torch.device("cpu")
    monkeypatch.setattr(budget, "choose_allocator", lambda kind: True)
    monkeypatch.setattr(budget, "baseline_bytes", lambda: 10**8)
    run = predict(cfg)
    free = run.high_bytes + run.checkpoint_bytes + LEAST_GROWTH
    monkeypatch.setattr(budget, "free_bytes", lambda: free + beside)
    found = predict_memory(cfg, cpu)
    assert isinstance(found, Budget) and found.allocator == "fast" and found.copies_checkpoints == copies
    assert found.expected[1] == found.room.base + run.high_bytes + copies * run.checkpoint_bytes


def test_a_run_with_room_copies_its_checkpoints_and_one_without_writes_them_at_once(go, predicted, monkeypatch):
    threads, save = [], Run.save

    def noted(*args, **kwargs):
        threads.append(threading.current_thread() is threading.main_thread())
        save(*args, **kwargs)

    monkeypatch.setattr(Run, "save", noted)
    go({"train.steps": 12})
    assert threads == [False, True]
    monkeypatch.setattr(budget, "LEAST_GROWTH", math.inf)
    go({"train.steps": 12, "train.name": "tight"})
    assert threads == [False, True, True, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_finite_is_what_isfinite_says(bad):
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.complex64):
        x = torch.full((3, 5), 3e38, dtype=dtype)
        if bad is not None:
            x[1, 2] = bad
        assert is_finite(x) == bool(x.isfinite().all()) == (bad is None)
    assert is_finite(torch.ones(2, dtype=torch.long)) and is_finite(torch.zeros(0)) and is_finite(torch.tensor(True))
