"""Whatever ends a run, it goes on to the same bits: kills, signals, time limits, full disks, damaged files."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
import torch
from lives import (
    QUIET,
    Fork,
    assert_same_checkpoints,
    begin_or_go_on,
    die_at_disk_event,
    interrupt,
    kill,
    kill_somewhere,
    wait_until,
)
from rich.console import Console
from small_runs import assert_same_run, content, small_run_config, untimed_log, write_text_file
from thorough import some

import runs
import train
import training.step
from config import override, save_config
from corpora import chunks, encoder, shards
from objective import OBJECTIVES
from optimizing.schedules import Schedule
from run_store import append_log
from run_store.checkpoint_files import NotWritten
from runs import NameTaken, Run
from train import Interrupted
from train import train as train_run
from training import report, setup, stopping
from training.stopping import Stop, Stopped

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("models")


# ---- two at once ----

PAIRS = int(os.environ.get("PAIRS", 4))  # 50 when it is measured
ENCODING_PAIRS = int(os.environ.get("PAIRS", 2))  # 20 when it is measured


@pytest.mark.slow
def test_of_two_trainings_with_one_name_one_has_it_and_the_other_says_so(folder, tmp_path):
    """Both get as far as a name that is free, and go on in the same moment."""
    cfg = small_run_config(folder, {"train.steps": 2, "train.sample_every": 100})
    train_run(override(cfg, {"train.name": "first"}), console=Console(quiet=True))  # the text is encoded

    def begin(pair: int, mine: Path, others: Path) -> None:
        create = Run.create

        def wait_and_create(name, *rest):
            mine.touch()
            while not others.exists():
                pass
            return create(name, *rest)

        Run.create = wait_and_create
        try:
            train_run(override(cfg, {"train.name": f"pair-{pair}"}), console=Console(quiet=True))
        except NameTaken as error:
            mine.write_text(str(error))

    for pair in range(PAIRS):
        flags = [tmp_path / f"{pair}-{number}" for number in range(2)]
        processes = [Fork(partial(begin, pair, *order)) for order in (flags, flags[::-1])]
        assert [process.wait() for process in processes] == [0, 0]
        said = [text for flag in flags if (text := flag.read_text())]
        assert len(said) == 1 and said[0].startswith(f"train.name=pair-{pair} is taken by ")
        run = Run(f"pair-{pair}")
        assert run.is_finished and [c.problem() for c in run.checkpoints()] == [None]
    assert {path.name for path in runs.MODELS.iterdir()} == {"first", *(f"pair-{pair}" for pair in range(PAIRS))}


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True], ids=["both live", "one is killed"])
def test_of_two_that_begin_on_one_text_one_encodes_it_and_the_other_has_the_same_cache(
        is_killed, tmp_path, monkeypatch):
    """Each pair has an empty cache; every other pair has helper processes. A kill is within the encoding."""
    write_text_file(tmp_path / "text.txt", num_words=20_000)
    for module in (chunks, encoder):
        monkeypatch.setattr(module, "CHUNK_CHARS", 2**13)
    drawn, encoded = random.Random(0), []
    for pair in range(ENCODING_PAIRS):
        (place := tmp_path / f"pair-{pair}").mkdir()
        monkeypatch.setattr(shards, "encode", partial(encode_and_wait, place, drawn.randrange(1, 4)))
        cfg = small_run_config(tmp_path, {"data.cache_dir": str(place / "cache"), "data.workers": 1 + pair % 2})
        processes = [Fork(lambda cfg=cfg: setup.prepare_run(cfg, CPU, console=QUIET)) for _ in range(2)]
        if is_killed:
            wait_until(processes[0], (place / "halfway").exists)
            kill(processes.pop(drawn.randrange(2)))  # the one that encodes, or the one that waits
        (place / "go").touch()
        assert [process.wait() for process in processes] == [0] * len(processes)
        (there,) = (path for path in (place / "cache").iterdir() if path.name != "scans")  # no lock, nothing half-made
        encoded.append((there.name, content(there)))
    assert encoded == encoded[:1] * ENCODING_PAIRS and len(encoded[0][1]) == 6


def encode_and_wait(place: Path, number: int, *args: object) -> Iterator[encoder.Encoded]:
    """Encode; after so many groups wait for a word to go on."""
    for group_number, group in enumerate(encoder.encode(*args)):
        yield group
        if group_number == number:
            (place / "halfway").touch()
            while not (place / "go").exists():
                time.sleep(0.01)


@pytest.mark.slow
def test_a_name_that_nobody_chose_is_chosen_again(folder, command, monkeypatch, tmp_path):
    path = tmp_path / "config.json"
    save_config(small_run_config(folder, {"train.name": None, "train.steps": 2}), path)
    create = Run.create

    def create_after_another(name, *rest):
        if name == "default":
            (runs.MODELS / name).mkdir(parents=True, exist_ok=True)
            (runs.MODELS / name / "notes.txt").write_text("mine")
        return create(name, *rest)

    monkeypatch.setattr(Run, "create", create_after_another)
    assert command("--config", str(path))[0] == 0
    assert Run("default-2").is_finished and (runs.MODELS / "default" / "notes.txt").read_text() == "mine"


# ---- SIGKILL ----


@pytest.mark.slow
@pytest.mark.parametrize("seed", some([0, 1], 2))
def test_a_run_killed_while_it_writes_goes_on_to_the_same_bits(folder, reference, seed):
    cfg, drawn, lives = small_run_config(folder), random.Random(seed), 0

    def life() -> int:
        run, number = Run("toy") if "toy" in runs.saved_runs() else None, drawn.randint(5, 30)
        return Fork(lambda: (die_at_disk_event(number), train_run(cfg, run=run, console=QUIET))).wait()

    while life() == -signal.SIGKILL:
        lives += 1
        saved = Run("toy").checkpoints() if "toy" in runs.saved_runs() else []
        assert [checkpoint.problem() for checkpoint in saved] == [None] * len(saved)
    assert lives >= 3
    run = Run("toy")
    assert_same_run(run, reference)
    assert run.is_finished and not list(run.path.rglob("*.tmp"))
    assert {c.step for c in run.checkpoints()} >= {18, 24}


OFTEN = {"train.log_every": 1, "train.checkpoint_every": 5, "train.sample_every": 50}


@pytest.mark.thorough
def test_a_program_killed_twice_is_the_run_left_alone(start, go, folder, tmp_path):
    changes, drawn = OFTEN | {"train.steps": 90}, random.Random(0)
    save_config(small_run_config(folder, changes), tmp_path / "config.json")
    words = ["--config", str(tmp_path / "config.json")]
    for number in range(2):
        kill_somewhere(start(*words, forked=True), 30 * number + drawn.randint(1, 20), drawn, in_a_save=number == 1)
        words = ["--resume", "toy"]
    newest = Run("toy").checkpoint("last").step
    said, errors = start("--resume", "toy", forked=True).communicate()
    assert f"going on after step {newest}\n" in said and not errors
    whole = go(changes | {"train.name": "whole"})
    assert Run("toy").is_finished
    assert_same_run(Run("toy"), whole)
    assert_same_checkpoints(Run("toy"), whole)


@pytest.mark.slow
def test_a_run_killed_again_and_again_is_the_run_left_alone(go, folder, pytestconfig):
    kills = 20 if pytestconfig.getoption("--thorough") else 8
    changes, drawn = OFTEN | {"train.steps": 10 * kills + 30}, random.Random(1)
    cfg = small_run_config(folder, changes)
    for number in range(kills):
        kill_somewhere(begin_or_go_on(cfg), 10 * number + drawn.randint(1, 8), drawn, in_a_save=number % 2 == 1)
    assert begin_or_go_on(cfg).wait() == 0
    whole = go(changes | {"train.name": "whole"})
    assert_same_run(Run("toy"), whole)
    assert_same_checkpoints(Run("toy"), whole)


SHORT = {"train.steps": 8, "train.log_every": 1, "train.eval_every": 4, "train.checkpoint_every": 3,
         "train.sample_every": 8, "sample.num_samples": 1, "sample.max_new_tokens": 3, "model.num_layers": 1,
         "train.eval_tokens": 64, "train.final_eval_share": 0.1}
ENCODER = {"model.cross": "attention", "model.encoder_layers": 1}
NEEDS = {  # of an objective, and what makes it draw or keep the most
    "multi_token": {"model.ahead": "modules", "model.ahead_depth": 2}, "prefix": {"data.packing": "documents"},
    "fill_in_the_middle": {"tokenizer.kind": "bpe", "tokenizer.vocab_size": 44, "train.fim.rate": 0.9},
    "masked_diffusion": {"train.diffusion.draws": 2},
    "block_diffusion": {"train.diffusion.block_len": 3, "train.diffusion.draws": 2},
    "seq2seq": ENCODER, "span_corruption": ENCODER,
    "diffuseq": {"model.noised": True, "model.noised_dim": 8, "model.noised_steps": 2, "model.tie_embeddings": True,
                 "sample.vectors.steps": 2, "train.diffuseq.sampling": "loss", "train.diffuseq.draws": 2,
                 "train.batch_size": 8, "train.ema_decay": 0.9},
}


@pytest.mark.parametrize("objective", [word for word in OBJECTIVES if word != "next_token"])
def test_a_run_of_each_objective_killed_within_a_step_is_the_run_left_alone(go, at_step, objective):
    changes = SHORT | {"train.objective": objective} | NEEDS.get(objective, {})
    whole = go(changes | {"train.name": "whole"})
    killed = Fork(lambda: (at_step(6, lambda model: os.kill(os.getpid(), signal.SIGKILL)), go(changes)))
    assert killed.wait() == -signal.SIGKILL
    assert Run("toy").checkpoint("last").step == 3 and not Run("toy").is_finished
    assert_same_run(go(changes, run=Run("toy")), whole)
    assert_same_checkpoints(Run("toy"), whole)


# ---- signals ----


def terminate(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def send_within(monkeypatch, where: str, number: int) -> None:
    """Have the first call of a function end in a signal, before it gives its result."""
    module = setup if where == "evaluate" else report
    function = getattr(module, where)

    def interrupted(*args, **kwargs):
        monkeypatch.setattr(module, where, function)
        function(*args, **kwargs)
        os.kill(os.getpid(), number)
        raise AssertionError("it went on after the signal")

    monkeypatch.setattr(module, where, interrupted)


@pytest.mark.parametrize("step", [3, 6, 24])
def test_sigterm_saves_and_exits_with_143(go, reference, command, folder, tmp_path, at_step, step):
    at_step(step, terminate)
    save_config(small_run_config(folder), tmp_path / "config.json")
    status, _, errors = command("--config", str(tmp_path / "config.json"))
    assert (status, errors) == (
        143, f"stopped after step {step}, which is saved; go on with: python train.py --resume toy\n")
    assert command("--resume", "toy")[0] == 0
    assert_same_run(Run("toy"), reference)
    assert_same_checkpoints(Run("toy"), reference)


LOOKED_AT = {
    "two weights": {"train.optimizer": "schedule_free", "train.schedule": "constant", "train.lr": 0.003},
    "an average": {"train.ema_decay": 0.9},
    "gradients": {"train.accumulation": 2, "train.log_grad_norms": True, "train.log_noise_scale": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", LOOKED_AT.values(), ids=LOOKED_AT)
def test_what_is_looked_at_only_after_an_interruption_is_the_same(go, monkeypatch, changes):
    whole = go(changes | {"train.name": "whole"})
    for where in ("evaluate", "write_samples", "evaluate"):
        send_within(monkeypatch, where, signal.SIGTERM)
        run = Run("toy") if "toy" in runs.saved_runs() else None
        with pytest.raises(Interrupted):
            go(changes | {"model.vocab_size": 24}, run=run)
    run = go(changes | {"model.vocab_size": 24}, run=Run("toy"))
    assert_same_run(run, whole)
    assert_same_checkpoints(run, whole)


@pytest.mark.parametrize(("where", "step"), [("evaluate", 6), ("write_samples", 12), ("plot_loss", 24)])
def test_a_signal_within_an_evaluation_sampling_or_the_report_waits_for_none_of_them(
        go, reference, monkeypatch, where, step):
    send_within(monkeypatch, where, signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"after step {step}, which is saved") as stopped:
        go()
    assert stopped.value.exit_status == 143
    run = Run("toy")
    assert run.checkpoint("last").step == step
    assert (step in run.log().step.tolist()) == (where == "plot_loss")
    assert_same_run(train_run(run.config, run=Run("toy"), console=QUIET), reference)
    assert_same_checkpoints(run, reference)


@pytest.mark.slow
def test_what_was_looked_at_twice_is_written_once(go, monkeypatch, at_step):
    changes = {"train.sample_every": 5, "train.checkpoint_every": 24}
    whole = go(changes | {"train.name": "whole"})
    send_within(monkeypatch, "write_samples", signal.SIGTERM)
    with pytest.raises(Interrupted, match="after step 5,"):
        go(changes)
    at_step(6, lambda model: (interrupt(), interrupt()))
    with pytest.raises(KeyboardInterrupt):  # at step 11, when the samples of step 5 and 10 are written
        train_run(Run("toy").config, run=Run("toy"), console=QUIET)
    assert [sample["step"] for sample in Run("toy").samples()] == [5, 5, 10, 10]
    assert Run("toy").checkpoint("last").step == 5
    assert_same_run(train_run(Run("toy").config, run=Run("toy"), console=QUIET), whole)


def test_sigterm_before_the_run_exists_says_so(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "prepare", terminate)
    save_config(small_run_config(folder), tmp_path / "config.json")
    status, _, errors = command("--config", str(tmp_path / "config.json"))
    assert (status, errors) == (143, "stopped at once; nothing was saved yet\n")


def test_sigterm_twice_is_once_and_sigint_after_it_is_at_once(go, at_step):
    at_step(3, lambda model: (terminate(), terminate()))
    with pytest.raises(Interrupted):
        go()
    at_step(3, lambda model: (terminate(), interrupt()))
    with pytest.raises(KeyboardInterrupt):
        train_run(Run("toy").config, run=Run("toy"), console=QUIET)
    assert Run("toy").checkpoint("last").step == 3


# ---- the time limit ----


class Clock:
    """A clock that stands still but when it is told."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(stopping.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(stopping.signal, "setitimer", lambda *_: None)


def test_a_time_limit_leaves_room_for_the_save(monkeypatch):
    clock = Clock(monkeypatch)
    stop, step_seconds, save_seconds = Stop(100.0), 2, 7
    with stop.save():
        clock.now += save_seconds
    with pytest.raises(Stopped):
        while True:
            stop.before_step()
            clock.now += step_seconds
            stop.after_step(step_seconds)
    assert stop.cause == "time limit"
    assert clock.now + 1.5 * save_seconds <= 100 < clock.now + 1.5 * (step_seconds + save_seconds) + 2.1


def test_a_slow_step_of_long_ago_is_forgotten_and_a_late_one_counts(monkeypatch):
    clock = Clock(monkeypatch)
    stop = Stop(100.0)
    for seconds in [60.0] + [0.1] * 20:  # the first compiles
        stop.before_step()
        stop.after_step(seconds)
    clock.now = 95.0
    stop.before_step()
    stop.after_step(5.0)
    with pytest.raises(Stopped):
        stop.before_step()


class Finalized:
    """Gets a signal while it is finalized, where Python drops what is raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_comes_while_an_object_is_finalized_is_not_lost(monkeypatch):
    monkeypatch.setattr(stopping, "AGAIN", 0.05)
    stop, end = Stop(), time.monotonic() + 10
    with stop.listening(), pytest.raises(Stopped), stop.interruptible():
        Finalized()
        while time.monotonic() < end:
            pass
    assert stop.cause == "SIGTERM" and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.slow
def test_a_run_stops_in_time_and_goes_on_with_a_fresh_limit(go, command, reference, monkeypatch, capfd):
    clip = training.step.clip
    monkeypatch.setattr(training.step, "clip", lambda model, limit: (time.sleep(0.15), clip(model, limit))[1])
    began = time.monotonic()
    run = go({"train.time_limit": "4s"}, console=Console(width=500))
    assert time.monotonic() - began < 4
    step = run.checkpoint("last").step
    assert 0 < step < 24 and not run.is_finished
    assert (f"stopped by train.time_limit=4s after step {step}, which is saved; go on with: "
            "python train.py --resume toy\n") in capfd.readouterr().out
    monkeypatch.setattr(train, "process_seconds", float)
    while not run.is_finished:
        status, _, errors = command("--resume", "toy")
        assert (status, errors) == (0, "")
        assert run.is_finished or run.checkpoint("last").step > step
        step = run.checkpoint("last").step
    assert_same_run(run, reference)


@pytest.mark.thorough
def test_the_limit_of_a_program_begins_with_its_process(start, folder, tmp_path):
    save_config(small_run_config(folder, {"train.steps": 10**6, "train.log_every": 10**6}), tmp_path / "config.json")
    began = time.time()
    process = start("--config", str(tmp_path / "config.json"), "--time-limit", "15s")
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "") and "stopped by train.time_limit=15s after step" in said
    assert 7 < Run("toy").checkpoint("last").path.stat().st_mtime - began < 15


def test_a_process_knows_its_age():
    code = "import time; time.sleep(0.5); from training import stopping; print(stopping.process_seconds())"
    said = subprocess.run([sys.executable, "-c", code], cwd=Path(stopping.__file__).parent.parent, capture_output=True)
    assert 0.5 <= float(said.stdout) < 20 or sys.platform != "linux"


@pytest.mark.parametrize("where", ["evaluate", "write_samples"])
@pytest.mark.slow
def test_a_time_limit_cuts_an_evaluation_and_sampling_short(go, reference, monkeypatch, where):
    module = setup if where == "evaluate" else report
    monkeypatch.setattr(module, where, lambda *_, **__: time.sleep(60))
    began = time.monotonic()
    run = go({"train.time_limit": "3.5s"})
    assert time.monotonic() - began < 3.5
    assert not run.is_finished and run.checkpoint("last").progress.logged_steps < run.checkpoint("last").step
    monkeypatch.undo()
    monkeypatch.setattr(runs, "MODELS", run.path.parent)
    longer = override(run.config, {"train.time_limit": None})
    assert_same_run(train_run(longer, run=Run("toy"), console=QUIET), reference)


# ---- a full disk ----


def limit_files(num_bytes: int) -> None:
    """Let no file of this process grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def at_steps(monkeypatch, acts: dict[int, Callable[[], object]]) -> None:
    """Do something in each of these steps."""
    steps, clip = count(1), training.step.clip
    monkeypatch.setattr(training.step, "clip",
                        lambda model, limit: (acts.get(next(steps), int)(), clip(model, limit))[1])


def errors_of(function: Callable[[], object], path: Path) -> str:
    """What a function says on stderr, in a process of its own that must end well."""
    def act():
        with path.open("w") as file, contextlib.redirect_stderr(file):
            function()

    assert Fork(act).wait() == 0
    return path.read_text()


def assert_survived(reference: Run, errors: str, refused: str) -> None:
    """A part of the log was refused for a time, and the checkpoint of step 12; nothing else is missing at the end."""
    run = Run("toy")
    assert_same_run(run, reference)
    assert_same_checkpoints(run, reference)
    assert not list(run.path.rglob("*.tmp"))
    log, checkpoint = errors.splitlines()
    assert f"warning: {run.path / refused} cannot be written (" in log and "wait in memory; training goes on" in log
    assert f"warning: {run.path / 'checkpoints' / 'step_00000012'} cannot be written (" in checkpoint
    assert "the newest checkpoint is that of step 6; training goes on" in checkpoint


def test_files_that_cannot_grow_for_a_time_cost_the_checkpoint_of_that_time(folder, reference, tmp_path, monkeypatch):
    def life():
        at_steps(monkeypatch, {7: lambda: limit_files((runs.MODELS / "toy" / "log.csv").stat().st_size + 10),
                               14: lambda: limit_files(resource.RLIM_INFINITY)})
        train_run(small_run_config(folder), console=QUIET)

    assert_survived(reference, errors_of(life, tmp_path / "errors"), "log.csv")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    """Leave no room."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_full_for_a_time_costs_the_checkpoint_of_that_time(
        go, reference, small_disk, monkeypatch, capfd):
    monkeypatch.setattr(runs, "MODELS", small_disk / "models")
    at_steps(monkeypatch, {7: lambda: fill(small_disk), 14: (small_disk / "filler").unlink})
    go()
    assert_survived(reference, capfd.readouterr().err, "samples.jsonl")


def test_a_disk_that_stays_full_ends_in_an_error_that_says_what_is_kept(
        command, folder, tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", small_disk / "models")
    save_config(small_run_config(folder), tmp_path / "config.json")
    at_steps(monkeypatch, {20: lambda: fill(small_disk)})
    status, _, errors = command("--config", str(tmp_path / "config.json"))
    *_, last = errors.splitlines()
    assert status == 2 and last.startswith("error: ") and "step_00000024 cannot be written (" in last
    assert "the newest checkpoint is that of step 18; make room and go on with --resume toy" in last
    assert [c.problem() for c in Run("toy").checkpoints()] == [None, None]


def test_a_report_that_cannot_be_written_is_written_by_the_next_sitting(go, command, reference, monkeypatch):
    def refuse(path, data):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch, pytest.raises(NotWritten, match=r"loss.png cannot be written \(No space left"
                                                       ".*the weights are saved.*--resume toy"):
        patch.setattr(report, "write_bytes", refuse)
        go()
    assert not Run("toy").is_finished
    assert command("--resume", "toy")[0] == 0
    assert_same_run(Run("toy"), reference)


def test_a_log_that_is_never_written_is_an_error(go, monkeypatch):
    def refuse(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(append_log, "append_whole", refuse)
    with pytest.raises(NotWritten, match=r"log.csv, .*samples.jsonl cannot be written \(No space .*"
                                         "and are lost: the checkpoint of step 24 is whole"):
        go()
    assert Run("toy").checkpoint("last").problem() is None


# ---- going on for longer ----


def test_a_finished_run_goes_on_for_longer_by_the_longer_runs_schedule(go, command, reference):
    go()
    status, said, errors = command("--resume", "toy", "--train.steps", "36", "--train.log-every", "6")
    assert (status, errors) == (0, "") and "going on after step 24" in said
    run = Run("toy")
    assert (run.config.train.steps, run.config.train.log_every) == (36, 6)
    assert run.config == override(reference.config, {"train.steps": 36, "train.log_every": 6})
    log = untimed_log(run)
    pd.testing.assert_frame_equal(log[:8], untimed_log(reference), check_exact=True)
    assert log.step[8:].tolist() == [30, 36]
    assert log.lr[8:].tolist() == [Schedule(run.config).rate(step - 1) for step in (30, 36)]


@pytest.mark.slow
def test_where_the_schedule_is_the_same_a_run_in_two_parts_is_the_run_in_one(go, command, at_step):
    flat = {"train.schedule": "constant", "train.warmup_steps": 2}
    whole = go(flat | {"train.name": "whole", "train.steps": 36})
    at_step(9, interrupt)
    with pytest.raises(Interrupted):
        go(flat)
    assert command("--resume", "toy", "--train.steps", "36")[0] == 0
    assert_same_run(Run("toy"), whole)
    assert_same_checkpoints(Run("toy"), whole)


def test_a_run_stays_locked_when_its_configuration_changes():
    run = train_run(small_run_config(runs.MODELS.parent, {"train.steps": 1}), console=QUIET)
    with run.locked():
        run.change(override(run.config, {"train.steps": 2}))
        with pytest.raises(ValueError, match="is being trained by another process"), Run("toy").locked():
            pass
    assert Run("toy").config.train.steps == 2
