"""Training: the same seed gives the same bits, however often it is stopped; what it writes down is true."""

import contextlib
import functools
import json
import math
import os
import random
import re
import signal
import threading
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import randomise
from lives import QUIET, interrupt, wait_for_step
from rich.console import Console
from small_runs import WORDS, assert_same_run, content, small_run_config, untimed_log, weights, write_text_file

import runs
import tales
from config import Config, DataConfig, ModelConfig, Packing, TokenizerConfig, override, replace, save_config
from corpora.corpus import load_corpus
from corpora.shards import prepare
from data import IGNORED, Batches, eval_batches
from model import Model
from objective import NextToken
from optimizing.schedules import Schedule
from run_store.details import describe_run
from run_store.listing import summarize_run
from runs import COLUMNS, Run
from tokenizer import load_tokenizer
from train import Diverged, Interrupted
from train import train as train_run
from training import setup
from training.evaluation import evaluate, ratio
from training.flops import flops_per_token
from training.setup import choose_tokenizer, fit_vocabulary
from training.step import TrainState, clip

pytestmark = pytest.mark.usefixtures("models")


# ---- what a run leaves ----


def test_the_folder_of_a_run_is_complete(reference):
    names = {str(path.relative_to(reference.path)) for path in reference.path.rglob("*") if path.is_file()}
    saved = {f"checkpoints/{checkpoint.path.name}/{name}" for checkpoint in reference.checkpoints()
             for name in ("model.safetensors", "optimizer.pt", "progress.json", "SHA256SUMS")}
    assert names == saved | {"config.json", "data.json", "environment.json", "log.csv", "loss.png", "samples.jsonl",
                             "tokenizer/meta.json"}
    assert [checkpoint.step for checkpoint in reference.checkpoints()] == [18, 24]  # the best is one of the newest
    image = (reference.path / "loss.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n") and image.endswith(b"IEND\xaeB`\x82")
    assert reference.config == small_run_config(reference.path.parents[1], {
        "model.vocab_size": reference.tokenizer().vocab_size})


def test_the_log_has_a_line_whenever_one_is_due(reference):
    log = reference.log()
    assert tuple(log.columns) == COLUMNS
    assert log.step.tolist() == [4, 6, 8, 12, 16, 18, 20, 24]
    assert log[log.val_loss.notna()].step.tolist() == [6, 12, 18, 24]
    assert log.tokens.tolist() == [step * 4 * 16 for step in log.step]
    assert log.flops.tolist() == pytest.approx(
        [flops_per_token(reference.config) * tokens for tokens in log.tokens])
    assert log.lr.tolist() == [Schedule(reference.config).rate(step - 1) for step in log.step]
    assert log.seconds.is_monotonic_increasing and (log.tokens_per_second > 0).all()


def test_a_line_has_the_mean_loss_of_the_steps_since_the_last(go):
    every, some = go({"train.log_every": 1}), go({"train.name": "some"})
    losses = every.log().train_loss.tolist()
    for before, step in zip([0, 4, 6], [4, 6, 8], strict=True):
        mean = some.log().set_index("step").train_loss[step]
        assert mean == pytest.approx(np.mean(losses[before:step]), rel=1e-12)


def test_bits_per_byte_follow_from_the_loss(reference):
    log, data = reference.log().dropna(), reference.data
    targets = data["val_tokens"] - 1  # all but the very first
    assert log.bits_per_byte.tolist() == pytest.approx(
        [loss * targets / math.log(2) / data["val_bytes"] for loss in log.val_loss])
    assert log.perplexity.tolist() == pytest.approx([math.exp(loss) for loss in log.val_loss])


def test_samples_begin_with_their_prompts(go):
    samples = go({"sample.prompts": ("the ", "fox"), "train.steps": 12}).samples()
    assert [(s["step"], s["prompt"]) for s in samples] == [(12, "the ")] * 2 + [(12, "fox")] * 2
    assert all(s["text"].startswith(s["prompt"]) and s["text"] != s["prompt"] for s in samples)


def test_text_becomes_easier(go):
    losses = go({"train.steps": 100, "train.eval_every": 25, "train.checkpoint_every": 100}).log().val_loss.dropna()
    assert len(losses) == 4 and losses.is_monotonic_decreasing
    assert losses.iloc[-1] < 1.2 < math.log(21)  # nats, from those of blind guessing


def test_tales_know_their_entropy_and_are_graded(go, capsys):
    console = Console(width=200)
    cfg = {"data.name": "tales", "data.num_stories": 30, "tokenizer.kind": "bpe", "tokenizer.vocab_size": 128,
           "train.steps": 2, "train.graded_stories": 3}
    run = train_run(override(small_run_config(runs.MODELS.parent), cfg), console=console)
    stories = [story for story, _ in zip(tales.stories(-1), range(3), strict=False)]
    floor = sum(story.bits for story in stories) / sum(len(story.text.encode()) for story in stories)
    said = capsys.readouterr().out
    assert run.data["floor_bits_per_byte"] == pytest.approx(floor)
    assert f"x the floor {floor:.3f})" in said
    assert "0 of 3 stories are grammatical" in said
    assert len(json.loads((run.path / "grades.json").read_text())) == 3
    assert {sample["prompt"] for sample in run.samples()} == {"Once"}


# ---- the same bits ----


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(go, reference):
    assert_same_run(go(), reference)
    other = go({"train.name": "other", "train.seed": 1})
    assert not untimed_log(other).equals(untimed_log(reference))


def test_a_deterministic_run_repeats_its_bits_in_torchs_deterministic_mode(go, at_step, reference):
    seen = []
    at_step(1, lambda model: seen.append(torch.are_deterministic_algorithms_enabled()))
    runs = [go({"train.deterministic": True, "train.name": name}) for name in "ab"]
    assert seen == [True] and not torch.are_deterministic_algorithms_enabled()
    assert_same_run(*runs)


def test_looking_changes_nothing(go, reference):
    seldom = go({"train.name": "seldom", "train.eval_every": 100, "train.sample_every": 100, "train.log_every": 100,
                 "train.checkpoint_every": 100})
    assert seldom.log().step.tolist() == [24]
    assert all(torch.equal(a, b) for a, b in zip(weights(seldom).values(), weights(reference).values(), strict=True))


@pytest.mark.parametrize("step", [3, 6, 12, 23])
@pytest.mark.slow
def test_an_interrupted_run_saves_and_goes_on_to_the_same_bits(go, reference, command, at_step, models, step):
    at_step(step, interrupt)
    with pytest.raises(Interrupted, match=f"after step {step}, which is saved; .*--resume toy"):
        go()
    assert Run("toy").checkpoint("last").step == step
    status, said, errors = command("--resume", "toy")
    assert (status, errors) == (0, "") and f"going on after step {step}" in said
    assert_same_run(Run("toy"), reference)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_the_last_step_leaves_the_report_to_the_next_sitting(go, reference, at_step):
    at_step(24, interrupt)
    with pytest.raises(Interrupted, match="after step 24, which is saved"):
        go()
    assert not Run("toy").is_finished
    assert_same_run(train_run(Run("toy").config, run=Run("toy"), console=QUIET), reference)


def as_file(cfg: Config, path) -> str:
    save_config(cfg, path)
    return str(path)


def test_the_command_says_how_to_go_on_after_an_interrupt(command, folder, tmp_path, at_step):
    at_step(7, interrupt)
    config = as_file(small_run_config(folder), tmp_path / "config.json")
    status, _, errors = command("--config", config)
    assert status == 130
    assert errors == "stopped after step 7, which is saved; go on with: python train.py --resume toy\n"


def test_a_second_interrupt_stops_at_once(command, folder, tmp_path, at_step, reference):
    def twice(_):
        interrupt()
        interrupt()

    at_step(9, twice)
    status, _, errors = command("--config", as_file(small_run_config(folder), tmp_path / "config.json"))
    assert status == 130
    assert errors == "stopped at once; go on with: python train.py --resume toy\n"
    assert Run("toy").checkpoint("last").step == 6
    train_run(Run("toy").config, run=Run("toy"), console=QUIET)
    assert_same_run(Run("toy"), reference)


def test_an_interrupt_before_the_run_exists_says_so(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "prepare", interrupt)
    status, _, errors = command("--config", as_file(small_run_config(folder), tmp_path / "config.json"))
    assert (status, errors) == (130, "stopped at once; nothing was saved yet\n")


def test_a_run_trains_outside_the_main_thread(go, reference):
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert_same_run(Run("toy"), reference)


# ---- one at a time ----


@pytest.mark.slow
def test_a_run_in_training_is_refused_to_another_process_and_goes_on_undisturbed(start, go, command, at_step):
    at_step(2, interrupt)
    with pytest.raises(Interrupted):
        go({"train.steps": 100_000, "train.log_every": 1, "train.eval_every": 10**6, "train.checkpoint_every": 10**6})
    other = start("--resume", "toy")
    wait_for_step(other, 5)
    at_step(1, interrupt)  # lest it train for hours where it is not refused
    assert command("--resume", "toy") == (
        2, "", "error: toy is being trained by another process: wait until that has ended, or stop it first\n")
    wait_for_step(other, len(Run("toy").log()) + 5)
    other.send_signal(signal.SIGINT)
    _, errors = other.communicate(timeout=100)
    assert other.returncode == 130 and errors.count("\n") == 1 and "--resume toy" in errors
    seen = Run("toy").checkpoint("last").progress.logged_steps  # the last step may be saved and not yet logged
    assert Run("toy").log().step.tolist() == list(range(1, seen + 1))


def test_where_there_are_no_locks_nothing_is_begun(command, folder, tmp_path, models, monkeypatch):
    monkeypatch.setattr(runs, "fcntl", None)
    status, _, errors = command("--config", as_file(small_run_config(folder), tmp_path / "config.json"))
    assert (status, errors.count("\n")) == (2, 1) and "fcntl" in errors
    assert not models.exists()


# ---- batches ----


def write_documents(path: Path) -> dict[str, Any]:
    """Sixty documents of one to forty words, as flags."""
    drawn = random.Random(0)
    path.write_text("|".join(" ".join(drawn.choices(WORDS, k=drawn.randint(1, 40))) for _ in range(60)))
    return {"data.name": str(path), "data.separator": "|"}


@pytest.mark.slow
@pytest.mark.parametrize("packing", get_args(Packing))
@pytest.mark.parametrize("position", ["rope", "learned"])
def test_a_run_of_any_packing_learns_and_goes_on_to_the_same_bits(go, at_step, tmp_path, packing, position):
    flags = write_documents(tmp_path / "documents.txt") | {"data.packing": packing, "model.position": position}
    whole = go(flags | {"train.name": "whole"})
    losses = whole.log().val_loss.dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    at_step(9, interrupt)
    with pytest.raises(Interrupted):
        go(flags)
    assert_same_run(train_run(Run("toy").config, run=Run("toy"), console=QUIET), whole)


@pytest.mark.slow
@pytest.mark.parametrize("packing", get_args(Packing))
def test_several_texts_are_mixed_by_their_weights(go, tmp_path, packing):
    (tmp_path / "x.txt").write_text("x y " * 400)
    flags = {"data.name": (str(tmp_path / "x.txt"), write_documents(tmp_path / "words.txt")["data.name"]),
             "data.weights": (3.0, 1.0), "data.packing": packing, "train.steps": 40, "train.eval_every": 40}
    run = go(flags)
    assert [source["share"] for source in run.data["sources"]] == [0.75, 0.25]
    other = go(flags | {"data.weights": (1.0, 3.0), "train.name": "other"})
    assert run.log().train_loss.iloc[-1] < other.log().train_loss.iloc[-1]  # x y is soon known


def test_a_target_weighs_the_same_in_every_pass_of_a_step(go, tmp_path):
    plain = write_documents(tmp_path / "documents.txt") | {
        "data.packing": "pad", "model.residual_dropout": 0.0, "model.attention.dropout": 0.0,
        "train.optimizer": "adamw",
        "train.adam_eps": 1e-3, "train.steps": 8, "train.eval_every": 100, "train.checkpoint_every": 100}
    whole = go(plain | {"train.batch_size": 4, "train.name": "whole"})
    parts = go(plain | {"train.batch_size": 1, "train.accumulation": 4, "train.name": "parts"})
    columns = ["step", "tokens", "train_loss", "grad_norm"]
    pd.testing.assert_frame_equal(whole.log()[columns], parts.log()[columns], rtol=1e-4)
    assert whole.log().tokens.iloc[-1] < 8 * 4 * 16  # padding is nothing to learn from


@pytest.mark.parametrize(("depth", "maker"), [(0, "MainThread"), (7, "prefetch_0")])
def test_batches_made_ahead_change_nothing(go, reference, monkeypatch, depth, maker):
    get, makers = Batches.__getitem__, set()

    def noted(batches, number):
        makers.add(threading.current_thread().name)
        return get(batches, number)

    monkeypatch.setattr(Batches, "__getitem__", noted)
    assert_same_run(go({"data.prefetch": depth}), reference)
    assert makers == {maker}


def test_a_batch_that_cannot_be_read_stops_the_run_with_its_own_words(go, monkeypatch):
    get = Batches.__getitem__

    def read(batches, number):
        if number == 5:
            raise OSError("the disk is gone")
        return get(batches, number)

    monkeypatch.setattr(Batches, "__getitem__", read)
    with pytest.raises(OSError, match="^the disk is gone$"):
        go({"train.log_every": 1})
    assert len(Run("toy").log()) == 5


@pytest.mark.parametrize("times", [0, 1, 2])
def test_no_thread_outlives_the_training(go, at_step, times):
    at_step(5, lambda _: [interrupt() for _ in range(times)])
    stopped = contextlib.nullcontext() if times == 0 else pytest.raises((Interrupted, KeyboardInterrupt))
    with stopped:
        go()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")] == []


def test_less_memory_is_the_same_run(go, reference):
    checkpointed = go({"train.checkpoint_activations": True, "train.name": "checkpointed"})
    assert_same_run(checkpointed, reference)
    chunked = go({"train.loss_chunk": 5, "train.name": "chunked"})
    for column in ("train_loss", "val_loss"):
        assert chunked.log()[column].tolist() == pytest.approx(reference.log()[column].tolist(), rel=1e-3, nan_ok=True)


# ---- going on ----


def test_going_on_with_a_finished_run_is_harmless_and_says_so(go, command, models):
    go({"train.steps": 2})
    before = content(models)
    assert command("--resume", "toy") == (0, "toy is finished: all 2 steps are taken\n", "")
    assert content(models) == before


def test_a_run_killed_before_its_report_is_reported(go, command, reference):
    (go().path / "loss.png").unlink()
    status, said, _ = command("--resume", "toy")
    assert status == 0 and "loss curve" in said
    assert Run("toy").is_finished
    assert_same_run(Run("toy"), reference)


def test_a_damaged_newest_checkpoint_is_skipped_with_a_word(go, command, reference):
    newest = go().checkpoint("last").path
    (newest / "optimizer.pt").write_bytes(b"")
    status, said, errors = command("--resume", "toy")
    assert status == 0 and "going on after step 18" in said
    assert errors == (f"warning: {newest} is damaged: optimizer.pt is not as it was saved; "
                      "going on from the newest whole checkpoint\n")
    assert_same_run(Run("toy"), reference)


def test_a_log_that_lost_its_lines_is_told_of_where_its_run_goes_on(go, command):
    log = go({"train.log_every": 2}).path / "log.csv"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
    status, _, errors = command("--resume", "toy", "--train.steps", "26")
    assert (status, errors) == (0, f"warning: {log} ends at step 6: its lines up to step 24 are lost\n")


def test_another_text_is_refused(go, command, tmp_path, models):
    text = write_text_file(tmp_path / "mine.txt")
    go({"data.name": str(text), "train.steps": 2})
    before = content(models)
    write_text_file(text, seed=1)
    status, _, errors = command("--resume", "toy")
    assert status == 2 and errors.count("\n") == 1
    assert f"data.name={text} has changed since toy began" in errors
    assert content(models) == before


def test_a_taken_name_is_refused_before_the_text_is_read(go, models):
    (models / "toy").mkdir(parents=True)
    with pytest.raises(ValueError, match="train.name=toy is taken"):
        go({"data.name": "no/such/file"})


def test_a_run_without_a_name_gets_one(go, command, folder, tmp_path):
    nameless = {"train.name": None, "train.steps": 1}
    assert [go(nameless).name, go(nameless).name] == ["default", "default-2"]
    config = as_file(small_run_config(folder, nameless), tmp_path / "config.json")
    assert command("default", "--config", config)[0] == 0
    assert Run("default-3").config.train.name == "default-3"


# ---- bad numbers ----


def plant_nan(model: Model) -> None:
    with torch.no_grad():
        model.blocks[1].mlp.branch.out.weight[0, 0] = math.nan


def test_a_nan_stops_with_its_step_and_module_and_the_last_good_checkpoint(command, folder, tmp_path, at_step):
    at_step(8, plant_nan)
    status, _, errors = command("--config", as_file(small_run_config(folder), tmp_path / "config.json"))
    assert status == 1 and errors.count("\n") == 1
    assert errors.startswith("error: step 9: loss nan") and "blocks.1.mlp" in errors
    assert f"the last good checkpoint is {Run('toy').path / 'checkpoints' / 'step_00000006'}" in errors
    assert [c.step for c in Run("toy").checkpoints()] == [6]
    assert all(tensor.isfinite().all() for tensor in weights(Run("toy")).values())


def test_a_diverged_run_says_so_in_the_list_until_it_goes_on(go, at_step):
    at_step(8, plant_nan)
    with pytest.raises(Diverged) as diverged:
        go()
    path = Run("toy").path
    assert summarize_run(path).state == "diverged" and str(diverged.value) in describe_run(path)
    go(run=Run("toy"))
    assert summarize_run(path).state == "finished" and not (path / "diverged.txt").exists()


def test_weights_that_turned_bad_in_a_step_are_not_saved_after_it(go, at_step):
    at_step(12, plant_nan)
    with pytest.raises(Diverged, match=r"^step 12: validation loss nan; .*blocks\.1\.mlp"):
        go()
    assert [c.step for c in Run("toy").checkpoints()] == [6]
    assert Run("toy").log().step.max() == 8


@pytest.mark.parametrize("when", [11, 12], ids=["stopped", "due"])
def test_a_checkpoint_with_weights_that_are_not_finite_is_never_written(go, at_step, monkeypatch, when):
    """In the row of a token that no text has, so that no loss tells; at a SIGTERM, and at a checkpoint that is due."""
    def spoil(model):
        with torch.no_grad():
            model.embed.tokens.weight[-1] = math.nan
        if when == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    at_step(when, spoil)
    with pytest.raises(Diverged, match=rf"^step {when}: embed.tokens.weight is not finite; the last good checkpoint is "
                                       ".*step_00000006; a lower"):
        go({"model.vocab_size": 300, "train.eval_every": 100})
    assert [c.step for c in Run("toy").checkpoints()] == [6]


def test_an_absurd_rate_stops_before_anything_was_saved(go):
    with pytest.raises(Diverged, match="^step [23]: .*there was no checkpoint yet; a lower --train.lr often helps$"):
        go({"train.lr": 1e30, "train.optimizer": "adamw"})


def test_a_bad_batch_is_named_wherever_it_stands_in_the_step(go, monkeypatch):
    def spoil(learner, batch):
        return f"called with {batch.x.shape[0]} rows"

    taken = count(1)
    forward = NextToken.forward

    def bad_second(self, batch):
        losses = forward(self, batch)
        if next(taken) != 2:
            return losses
        return losses._replace(total=losses.total * math.nan, parts={"next_token": losses.total.detach() * math.nan})

    monkeypatch.setattr(TrainState, "first_bad_module", spoil)
    monkeypatch.setattr(NextToken, "forward", bad_second)
    with pytest.raises(Diverged, match="^step 1: loss nan.*called with 1 rows"):
        go({"train.batch_size": 1, "train.accumulation": 3})
    assert next(taken) == 3


# ---- the parts of a step ----


def test_accumulated_passes_equal_one_large_one(go):
    plain = {"model.residual_dropout": 0.0, "model.attention.dropout": 0.0, "train.optimizer": "adamw",
             "train.adam_eps": 1e-3, "train.steps": 8, "train.eval_every": 100, "train.checkpoint_every": 100}
    whole = go(plain | {"train.batch_size": 4, "train.name": "whole"})
    parts = go(plain | {"train.batch_size": 1, "train.accumulation": 4, "train.name": "parts"})
    columns = ["step", "tokens", "flops", "train_loss", "grad_norm", "lr"]
    pd.testing.assert_frame_equal(whole.log()[columns], parts.log()[columns], rtol=1e-4)
    for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_the_gradient_is_scaled_down_to_the_limit_and_never_up():
    linear = torch.nn.Linear(2, 1, bias=False)
    for limit, expected in ((1.0, [0.6, 0.8]), (None, [3.0, 4.0]), (9.0, [3.0, 4.0])):
        linear.weight.grad = torch.tensor([[3.0, 4.0]])
        assert clip(linear, limit) == pytest.approx(5.0)
        assert linear.weight.grad[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_bfloat16_trains_close_to_float32(go, reference):
    run = go({"train.precision": "bfloat16"})
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}
    ours, theirs = run.log().train_loss, reference.log().train_loss
    assert not ours.equals(theirs)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=0.05)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_says_which_precision_it_found(go, monkeypatch, fast, precision):
    monkeypatch.setattr(setup, "has_fast_bfloat16", lambda device: fast)
    assert go({"train.precision": "auto", "train.steps": 1}).config.train.precision == precision


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_curve(go, monkeypatch):
    # without the last stage, which makes machine code and takes half a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain = {"model.residual_dropout": 0.0, "model.attention.dropout": 0.0, "train.steps": 6}
    eager, compiled = go(plain | {"train.name": "eager"}), go(plain | {"train.compile": True})
    assert compiled.log().train_loss.tolist() == pytest.approx(eager.log().train_loss.tolist(), rel=1e-3)


def test_the_rate_steps_down_with_the_passes_over_the_data(go, folder):
    run = go({"train.schedule": "step", "train.step_gamma": 0.5, "train.step_unit": "epochs", "train.warmup_steps": 0,
              "train.log_every": 1, "train.accumulation": 2, "train.lr": 0.01, "train.steps": 40})
    corpus = load_corpus(run.config.data)
    parts, _ = prepare(corpus, run.tokenizer(), folder / "cache")
    rows = Batches(parts, batch_size=4, seq_len=16).rows_per_epoch
    assert rows < 40 * 8  # or the rate never falls
    assert run.log().lr.tolist() == [0.01 * 0.5 ** (step * 8 // rows) for step in range(40)]


@pytest.mark.parametrize(("warmup", "warned"), [(5, True), (6, True), (4, False), (None, False)])
def test_a_warmup_that_never_ends_is_pointed_out(folder, capsys, warmup, warned):
    cfg = small_run_config(folder, {"train.warmup_steps": warmup, "train.steps": 5})
    train_run(cfg, console=Console(width=60))
    assert ("warning: train.warmup_steps=" in capsys.readouterr().err) == warned


# ---- evaluation ----


@pytest.fixture(scope="module")
def guesser(folder):
    """A model that gives every token its own, fixed probability; with the validation part and its tokenizer."""
    tokenizer = load_tokenizer("tales_128")
    corpus = load_corpus(DataConfig(num_stories=40))
    _, part = prepare(corpus, tokenizer, folder / "cache")
    model = Model(ModelConfig(dim=8, num_layers=1, vocab_size=128, max_seq_len=64, head_bias=True,
                              head_zero_init=True, residual_dropout=0.5, pointer=False))
    with torch.no_grad():
        model.head.unembed.bias.copy_(torch.linspace(-2, 2, 128))
    return NextToken(model), part, tokenizer


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_every_target_counts_once_whatever_the_batch(guesser, batch_size):
    model, part, tokenizer = guesser
    targets = np.array(part.tokens[1:]).astype(int)
    nats = -torch.linspace(-2, 2, 128).double().log_softmax(0).numpy()[targets]
    result = evaluate(model, part, tokenizer, batch_size)
    assert result.loss == pytest.approx(nats.mean(), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / part.num_bytes, rel=1e-5)
    assert result.accuracy == pytest.approx((targets == 127).mean())


@pytest.mark.parametrize("packing", ["pad", "documents"])
def test_every_byte_counts_whatever_the_packing(guesser, packing):
    model, part, tokenizer = guesser
    targets = np.delete(np.array(part.tokens), part.document_starts).astype(int)
    nats = -torch.linspace(-2, 2, 128).double().log_softmax(0).numpy()[targets]
    result = evaluate(model, part, tokenizer, 3, packing=packing)
    assert tokenizer.byte_lengths[targets].sum() == part.num_bytes
    assert result.loss == pytest.approx(nats.mean(), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / part.num_bytes, rel=1e-5)


def test_packed_documents_are_predicted_as_documents_in_rows_of_their_own(guesser):
    _, part, tokenizer = guesser
    model = NextToken(randomise(Model(ModelConfig(dim=8, num_layers=2, vocab_size=128, max_seq_len=64))))
    padded, packed, stream = (evaluate(model, part, tokenizer, 3, packing=kind)
                              for kind in ("pad", "documents", "stream"))
    assert packed.loss == pytest.approx(padded.loss, rel=1e-6) != stream.loss
    assert packed.accuracy == padded.accuracy
    chunked = NextToken(model.model, loss_chunk=7)
    assert evaluate(chunked, part, tokenizer, 3, packing="pad").loss == pytest.approx(padded.loss, rel=1e-6)


def test_evaluation_moves_neither_the_random_state_nor_the_mode(guesser):
    state = torch.get_rng_state()
    evaluate(*guesser, 4)
    assert guesser[0].training and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("packing", ["stream", "pad", "documents"])
def test_a_part_of_the_validation_text_is_spread_over_it_and_within_every_larger_part(guesser, packing):
    _, part, tokenizer = guesser

    def rows(max_tokens: int | None) -> np.ndarray:
        batches = eval_batches(part, 3, 64, packing, max_tokens=max_tokens)
        return np.concatenate([batch.x[(batch.y != IGNORED).any(-1)].numpy() for batch in batches])

    every = rows(None)
    for most in (1, 2, 3, 7, 8, len(every) // 2, len(every) - 1, len(every), 10 * len(every)):
        fitting = next(every[:: 2**power] for power in range(20) if len(every[:: 2**power]) <= most)
        assert np.array_equal(rows(most * 64), fitting)
    assert np.array_equal(rows(1), every[:1])


@pytest.mark.parametrize("max_tokens", [None, 640])
def test_an_evaluation_has_the_standard_error_of_its_rows(guesser, max_tokens):
    objective, part, tokenizer = guesser
    result = evaluate(objective, part, tokenizer, 3, max_tokens)
    guesses = torch.linspace(-2, 2, 128).double().log_softmax(0)
    rows = [y[y != IGNORED] for batch in eval_batches(part, 3, 64, max_tokens=max_tokens) for y in batch.y]
    rows = [row for row in rows if len(row)]
    nats = np.array([-guesses[row].sum() for row in rows])
    for spelled, below in (("loss", [len(row) for row in rows]),
                           ("bits_per_byte", [tokenizer.byte_lengths[row].sum() * math.log(2) for row in rows])):
        value, error = getattr(result, spelled), getattr(result, f"{spelled}_error")
        assert value == pytest.approx(nats.sum() / sum(below), rel=1e-5)
        resampled = np.random.default_rng(0).integers(len(rows), size=(4000, len(rows)))  # the bootstrap
        assert error == pytest.approx((nats[resampled].sum(1) / np.array(below)[resampled].sum(1)).std(), rel=0.15)
    assert evaluate(objective, part, tokenizer, 3, 64).loss_error is None  # one row


@pytest.mark.parametrize(("eval_tokens", "share", "last"), [
    (64, None, None), (None, 0.05, None), (64, 0.5, 288), (64, 0.01, 64), (320, 0.1, 320)])
def test_checkpoints_compare_on_the_same_tokens_and_the_last_line_is_of_a_share_of_the_trainings(
        go, folder, eval_tokens, share, last):
    run = go({"train.steps": 9, "train.eval_tokens": eval_tokens, "train.final_eval_share": share})
    corpus = load_corpus(run.config.data)
    _, part = prepare(corpus, run.tokenizer(), folder / "cache")

    def loss(step: int, max_tokens: int | None) -> float:
        return evaluate(NextToken(run.load_model(str(step))), part, run.tokenizer(), 4, max_tokens).loss

    assert loss(9, 64) != loss(9, None)  # or nothing could be told apart below
    assert [c.progress.val_loss for c in run.checkpoints()] == [loss(6, eval_tokens), loss(9, eval_tokens)]
    assert run.log().val_loss.dropna().tolist() == [loss(6, eval_tokens), loss(9, last)]


# ---- how long ----


@pytest.mark.parametrize(("changes", "tokens"), [
    ({"train.tokens": 640}, 640), ({"train.tokens": 650}, 640), ({"train.tokens": 1}, 64), ({"train.epochs": 2}, None),
    ({"train.tokens": 1000, "train.accumulation": 2}, 1024),
], ids=str)
def test_tokens_and_epochs_are_put_into_steps(go, changes, tokens, capsys):
    run = go(changes | {"train.checkpoint_every": 100, "train.eval_every": 100}, console=Console(width=500))
    cfg, log = run.config, run.log()
    assert (cfg.train.tokens, cfg.train.epochs) == (None, None) and log.step.max() == cfg.train.steps
    if tokens is None:  # two passes over all rows, to the nearest step
        rows = int(re.search(r"\(2 passes over ([\d,]+)\)", capsys.readouterr().out)[1].replace(",", ""))
        assert abs(cfg.train.steps * 64 - 2 * rows) <= 64
    else:
        assert log.tokens.max() == tokens


def test_tokens_and_epochs_at_once_are_refused():
    with pytest.raises(ValueError, match="train.tokens=5 and epochs=2 both say how long to train: leave one out"):
        override(Config(), {"train.tokens": 5, "train.epochs": 2.0})


def test_a_part_of_the_loss_has_a_column_and_stays_out_of_the_loss(go):
    plain, weighted = (go({"train.name": name, "model.z_loss": z, "train.steps": 6, "train.lr": 1e-9,
                           "train.log_every": 1})
                       for name, z in (("plain", 0.0), ("weighted", 0.5)))
    assert "z" not in plain.log() and (weighted.log().z > 0).all()
    assert weighted.log().train_loss.tolist() == pytest.approx(plain.log().train_loss.tolist(), rel=1e-3)


# ---- tokenizer and vocabulary ----


@pytest.mark.parametrize(("flags", "data", "kind", "size"), [
    ({}, "tales", "bpe", 4096),
    ({"vocab_size": 128}, "tales", "bpe", 128),
    ({"path": "tales_256"}, "text", "bpe", 256),
    ({"kind": "byte"}, "text", "byte", 259),
    ({"kind": "char"}, "text", "char", 24),
    ({"kind": "unigram", "vocab_size": 30}, "text", "unigram", 30),
    ({"kind": "hf_bpe", "vocab_size": 270}, "text", "hf_bpe", 270),
], ids=str)
def test_the_tokenizer_is_built_loaded_or_trained(folder, flags, data, kind, size):
    name = data if data == "tales" else str(write_text_file(folder / "text.txt"))
    cfg = DataConfig(name=name, cache_dir=str(folder / "cache"))
    tokenizer = choose_tokenizer(TokenizerConfig(**flags), cfg, load_corpus(cfg))
    assert (tokenizer.kind, tokenizer.vocab_size) == (kind, size)


def test_the_alphabet_has_the_validation_text_too(go, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abc " * 200 + "z" * 20)
    assert "z" in go({"data.name": str(text), "train.steps": 1}).tokenizer().alphabet


def test_the_vocabulary_is_the_tokenizers_or_a_larger_one():
    cfg, tokenizer = Config(), load_tokenizer("tales_128")
    assert fit_vocabulary(cfg, tokenizer).model.vocab_size == 128
    larger = replace(cfg, model=replace(cfg.model, vocab_size=130))
    assert fit_vocabulary(larger, tokenizer) == larger
    with pytest.raises(ValueError, match="model.vocab_size=127 is smaller than the tokenizer's 128"):
        fit_vocabulary(replace(cfg, model=replace(cfg.model, vocab_size=127)), tokenizer)


def test_a_prompt_outside_the_alphabet_is_refused_before_the_run_exists(go, models):
    with pytest.raises(ValueError, match="'é'"):
        go({"sample.prompts": ("café",)})
    assert not models.exists()


def test_a_vocabulary_larger_than_the_tokenizers_writes_only_its_tokens(go):
    run = go({"model.vocab_size": 5000, "train.steps": 2, "sample.max_new_tokens": 30})
    assert run.config.model.vocab_size == 5000
    assert all(len(sample["text"]) > 1 for sample in run.samples())


def test_a_ratio_of_nothing_is_not_a_number():
    value, error = ratio(np.array([1.0, 2.0]), np.zeros(2))
    assert math.isnan(value) and error is None
