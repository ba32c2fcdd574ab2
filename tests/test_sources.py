"""Curves are found by any name, those of others read as they wrote them; what is broken is named and left out."""

import csv
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_runs import DATA
from torch.utils.tensorboard import SummaryWriter

from config import Config, ModelConfig, TrainConfig
from experiments.comparing.event_files import Scalar, standing
from experiments.comparing.sources import find
from runs import Run
from tokenizer import ByteTokenizer

LOSSES = {0: 5.5, 250: 4.25, 500: 3.125}


def make_run(name: str, losses: dict[int, float] = LOSSES) -> Run:
    """A run that has logged these validation losses, and trained nothing."""
    cfg = Config(model=ModelConfig(dim=16, vocab_size=259), train=TrainConfig(name=name))
    run = Run.create(name, cfg, ByteTokenizer(), DATA)
    for step, loss in losses.items():
        run.append({"step": step, "tokens": 8 * step, "train_loss": loss - 0.5, "val_loss": loss})
    return run


@pytest.fixture(autouse=True)
def place(models, tmp_path, monkeypatch):
    """The working folder; the runs lie in models/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only(word: str | Path) -> pd.DataFrame:
    """The one curve that a word names."""
    (source,), problems = find([str(word)])
    assert not problems
    return source.table


def names(words: list[str]) -> list[str]:
    return [source.name for source in find(words)[0]]


# ---- our own runs ----


def test_a_run_is_found_by_its_name_its_path_and_patterns_once_and_in_the_order_named(models):
    for name in ("wide-1", "wide-2", "deep-1"):
        make_run(name)
    assert names(["wide-2", "deep*", "*", str(models / "wide-2"), "models/deep-1"]) == ["wide-2", "deep-1", "wide-1"]
    assert names(["models"]) == names(["models/*-*"]) == names(["*"]) == ["deep-1", "wide-1", "wide-2"]
    (source,), problems = find(["wide-1"])
    assert (source.path, source.run.config.train.name, problems) == (models / "wide-1", "wide-1", [])
    pd.testing.assert_frame_equal(source.table, Run("wide-1").log(), check_exact=True)


BREAK = {
    "no config": (lambda path: (path / "config.json").unlink(), "has no config.json"),
    "cut config": (lambda path: (path / "config.json").write_text('{"model": {'), "config.json is neither JSON nor"),
    "cut data": (lambda path: (path / "data.json").write_text('{"na'), "data.json cannot be read"),
    "no log": (lambda path: (path / "log.csv").unlink(), "log.csv is missing"),
    "empty log": (lambda path: (path / "log.csv").write_text(""), "log.csv cannot be read"),
    "header only": (lambda path: cut_log(path, num_lines=1), "has no line in its log yet"),
    "binary log": (lambda path: (path / "log.csv").write_bytes(b"step\n\xff\n"), "log.csv cannot be read"),
    "another table": (lambda path: (path / "log.csv").write_text("a,b\n1,2\n"), "has no column step"),
}


def cut_log(path: Path, num_lines: int) -> None:
    lines = (path / "log.csv").read_text().splitlines(keepends=True)
    (path / "log.csv").write_text("".join(lines[:num_lines]))


@pytest.mark.parametrize("word", ["bad", "models/bad", "models", "*"])
@pytest.mark.parametrize(("damage", "said"), BREAK.values(), ids=BREAK)
def test_a_broken_or_half_written_run_is_named_and_left_out(models, word, damage, said):
    make_run("good")
    damage(make_run("bad").path)
    sources, (problem,) = find(["good", word])
    assert [source.name for source in sources] == ["good"]
    assert str(models / "bad") in problem and said in problem


def test_a_line_of_a_log_that_a_kill_cut_short_does_not_count(models):
    log = make_run("toy").path / "log.csv"
    log.write_text(log.read_text().rstrip("\n")[:-10])
    assert only("toy").step.tolist() == [0, 250]


def test_where_nothing_is_found_it_is_an_error_that_names_what_there_is():
    with pytest.raises(ValueError, match="nothing to compare: name a run; there are no runs yet"):
        find([])
    make_run("toy")
    with pytest.raises(ValueError, match="nothing to compare: tyo is not a run, a file, a folder.*; there are toy"):
        find(["tyo"])
    (source,), (problem,) = find(["tyo*", "toy"])
    assert source.name == "toy" and "tyo*" in problem


def test_what_has_the_same_name_is_told_apart_by_its_path(place):
    make_run("gpt")
    for folder in ("a", "b"):
        (place / folder).mkdir()
        (place / folder / "gpt.csv").write_text("step,loss\n1,2.5\n")
        (place / folder / "log.csv").write_text("step,loss\n1,2.5\n")
        (place / folder / "chart.csv").write_text("Step,wide - loss,deep - loss\n1,2.5,3.5\n")
    assert names(["gpt", "a/gpt.csv", "b/gpt.csv", "a/log.csv", "a/chart.csv", "b/chart.csv"]) == [
        "models/gpt", "a/gpt", "b/gpt", "a", "a/chart/wide", "a/chart/deep", "b/chart/wide", "b/chart/deep"]
    (place / "a" / "log.txt").write_text("iter 1: loss 2.5\n")
    assert names(["a/log.csv", "a/log.txt"])[1] == f"{names(['a/log.csv', 'a/log.txt'])[0]} (2)"


# ---- nanoGPT and templateGPT ----


def test_what_nanogpt_prints_is_read(place):
    lines = ["number of parameters: 10.65M", "found vocab_size = 65 (inside data/shakespeare_char/meta.pkl)"]
    for step, loss in LOSSES.items():
        lines += [f"step {step}: train loss {loss - 0.5:.4f}, val loss {loss:.4f}", "saving checkpoint to out",
                  f"iter {step}: loss {loss - 0.25:.4f}, time 26732.69ms, mfu -100.00%",
                  f"iter {step + 10}: loss {loss - 0.375:.4f}, time 12.50ms, mfu 3.01%"]
    (place / "char.txt").write_text("\n".join(lines) + "\n")
    table = only("char.txt")
    assert table.step.tolist() == [0, 10, 250, 260, 500, 510]
    evaluated = table[table.val_loss.notna()].set_index("step")
    assert evaluated.val_loss.to_dict() == LOSSES
    assert (evaluated.train_loss == evaluated.val_loss - 0.5).all()
    assert table.loss.tolist() == [5.25, 5.125, 4, 3.875, 2.875, 2.75]
    assert table.mfu.tolist() == [-100, 3.01] * 3 and table.time[1] == 12.5


def test_nanogpts_history_on_weights_and_biases_is_read_by_its_iterations(place):
    rows = [{"_step": number, "_runtime": 2.5 + number, "_timestamp": 1.7e9, "iter": step, "train/loss": loss - 0.5,
             "val/loss": loss, "lr": 6e-4, "mfu": 0.3} for number, (step, loss) in enumerate(LOSSES.items())]
    pd.DataFrame(rows).to_csv(place / "gpt2.csv")
    table = only("gpt2.csv")
    assert dict(zip(table.step, table.val_loss, strict=True)) == LOSSES
    assert (table.train_loss == table.val_loss - 0.5).all()
    assert table.seconds.tolist() == [2.5, 3.5, 4.5]
    assert set(table) == {"step", "_step", "seconds", "_timestamp", "train_loss", "val_loss", "lr", "mfu"}


def test_a_chart_of_weights_and_biases_gives_each_of_its_runs(place):
    metrics = ["gpt2 - 124M - val/loss", "wide - val/loss", "crashed - val/loss"]
    columns = [column + end for column in metrics for end in ("", "__MIN", "__MAX")]
    rows = [[step, loss, loss, loss, "" if step == 0 else 2 * loss, "", "", *[""] * 3] for step, loss in LOSSES.items()]
    with (place / "wandb_export.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["Step", *columns], *rows])
    sources, _ = find(["wandb_export.csv"])
    assert {source.name: dict(zip(source.table.step, source.table.val_loss, strict=True)) for source in sources} == {
        "gpt2 - 124M": LOSSES, "wide": {250: 8.5, 500: 6.25}}
    assert all(list(source.table) == ["step", "val_loss"] for source in sources)


TEMPLATE_COLUMNS = ["Step", "Time Elapsed", "Tokens Per Second", "Train Loss", "Validation Loss", "Perplexity",
                    "Learning Rate", "Norm"]
OURS = ["step", "seconds", "tokens_per_second", "train_loss", "val_loss", "perplexity", "lr", "grad_norm"]


def test_templategpts_log_is_read_and_has_the_name_of_its_folder(place):
    folder = place / "trained" / "attoGPT"
    folder.mkdir(parents=True)
    with (folder / "log_data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([TEMPLATE_COLUMNS] + [
            [step, step / 2, 2e4, loss - 0.5, loss, np.exp(loss), "tensor(0.0100)" if step else 1e-6, 0.25]
            for step, loss in LOSSES.items()])
    for word in ("trained/attoGPT/log_data.csv", "trained/attoGPT", "trained/*"):
        (source,), problems = find([word])
        assert (source.name, source.run, problems) == ("attoGPT", None, [])
        assert list(source.table) == OURS
        assert dict(zip(source.table.step, source.table.val_loss, strict=True)) == LOSSES
        assert source.table.lr.tolist() == [1e-6, 0.01, 0.01]


def test_what_templategpt_prints_is_read(place):
    (place / "atto.log").write_text("".join(
        f"step: {step:04d}, time elapsed: {step / 2:.2f}s, tokens/s: {20433:08d}, train loss: {loss - 0.5:.4f}, "
        f"val loss: {loss:.4f}, ppl: {np.exp(loss):.2e}, lr: {0.001:.8f}, grad norm: {0.25:.4f}\n"
        for step, loss in LOSSES.items()))
    table = only("atto.log")
    assert list(table) == OURS
    assert dict(zip(table.step, table.val_loss, strict=True)) == LOSSES
    assert table.perplexity[0] == 245 and set(table.tokens_per_second) == {20433}


def test_ours_and_theirs_stand_in_one_list():
    make_run("ours")
    Path("theirs.csv").write_text("iter,train/loss,val/loss,lr,mfu\n0,10.5,11,6e-4,-1\n250,3.5,4,6e-4,0.3\n")
    sources, problems = find(["ours", "theirs.csv"])
    assert [(source.name, source.run is None) for source in sources] == [("ours", False), ("theirs", True)]
    assert not problems
    for source in sources:
        assert {"step", "train_loss", "val_loss", "lr"} <= set(source.table)


# ---- any table ----


@pytest.mark.parametrize("column", ["step", "Step", " global_step", "train/global_step", "iter", "iteration", "_step"])
def test_a_step_has_many_names(place, column):
    (place / "log.csv").write_text(f"{column},val_loss\n3,2.5\n7,1.5\n")
    assert only("log.csv").step.tolist() == [3, 7]


@pytest.mark.parametrize(("theirs", "ours"), [
    ("loss", "train_loss"), ("Loss/train", "train_loss"), ("training_loss", "train_loss"), ("val_loss", "val_loss"),
    ("Validation Loss", "val_loss"), ("eval/loss", "val_loss"), ("Loss/valid", "val_loss"), ("dev loss", "val_loss"),
    ("learning_rate", "lr"), ("train/learning_rate", "lr"), ("val_acc", "accuracy"), ("eval/accuracy", "accuracy"),
    ("val/ppl", "perplexity"), ("val_bpb", "bits_per_byte"), ("Gradient Norm", "grad_norm"),
    ("tok/sec", "tokens_per_second"), ("tokens_per_sec", "tokens_per_second"), ("total_tokens", "tokens"),
    ("_runtime", "seconds"), ("test_loss", "test_loss"), ("mfu", "mfu"), ("lr-AdamW", "lr-AdamW")])
def test_a_column_of_ours_is_known_by_other_names(place, theirs, ours):
    (place / "log.csv").write_text(f"step,{theirs}\n3,2.5\n")
    assert list(only("log.csv")) == ["step", ours]


def test_a_second_step_column_stays_under_its_own_name(place):
    (place / "log.csv").write_text("Step,step,_step,loss\n0,10,0,2.5\n1,20,1,1.5\n")
    table = only("log.csv")
    assert (table.step.tolist(), table.Step.tolist(), table._step.tolist()) == ([10, 20], [0, 1], [0, 1])


def test_the_first_of_two_names_for_one_column_is_taken_and_the_other_stays(place):
    (place / "log.csv").write_text("step,loss,train/loss,val_loss,eval_loss\n3,1,2,3,4\n")
    assert only("log.csv").iloc[0].to_dict() == {"step": 3, "loss": 1, "train_loss": 2, "val_loss": 3, "eval_loss": 4}
    (place / "log.csv").write_text("step,val/loss,Loss/val\n3,1,2\n")
    assert only("log.csv").iloc[0].to_dict() == {"step": 3, "val_loss": 1, "Loss/val": 2}


def test_of_a_step_that_stands_there_twice_each_columns_last_number_counts(place):
    header = "step,train_loss,val_loss,note\n"
    (place / "log.csv").write_text(f"{header}5,2.5,,a\n5,,2.75,\n9,1.5,,\n5,2.25,,\n{header}11,nan,,\n")
    table = only("log.csv")
    assert list(table) == ["step", "train_loss", "val_loss"]
    assert table.fillna(-1).values.tolist() == [[5, 2.25, 2.75], [9, 1.5, -1]]


@pytest.mark.parametrize("text", ["step;loss\n1;2.5\n2;1.5", "step\tloss\r\n1\t2.5\r\n2\t1.5\r\n",
                                  "\ufeffstep,loss\n1,2.5\n2,1.5\n", "step, loss\n1, 2.5\n2, 1.5\n"])
def test_tables_are_read_however_their_cells_are_parted(place, text):
    (place / "log.csv").write_text(text, newline="")
    assert only("log.csv").to_dict("list") == {"step": [1, 2], "train_loss": [2.5, 1.5]}


def test_a_last_line_that_was_cut_short_is_left_out(place):
    (place / "log.csv").write_text("step,train_loss,val_loss\n1,2.5,2.75\n2,1.")
    assert only("log.csv").step.tolist() == [1]
    (place / "log.csv").write_text("step,train_loss,val_loss\n1,2.5,2.75\n2,1.25,1.5")
    assert only("log.csv").step.tolist() == [1, 2]


USELESS = {
    "no step column": ("epoch,loss\n1,2.5\n", "has no step column: expected one of step,"),
    "no numbers": ("step,comment\n1,fine\n", "holds no numbers beside its steps"),
    "header only": ("step,loss\n", "holds no numbers beside its steps"),
    "steps only": ("step\n1\n", "holds no numbers beside its steps"),
    "infinite": ("step,loss\n1,inf\n2,1e999\n", "holds no numbers beside its steps"),
    "no steps": ("step,loss\nnan,2.5\n", "holds no numbers beside its steps"),
    "empty": ("", "has no step column"),
    "prose": ("In 1984 there were 3 foxes.\n", "has no step column"),
    "ragged": ("step,loss\n1,2\n3,4,5,6\n", "is not a table"),
}


@pytest.mark.parametrize(("text", "said"), USELESS.values(), ids=USELESS)
def test_a_file_that_holds_no_curve_is_named_and_left_out(place, text, said):
    make_run("good")
    (place / "bad.csv").write_text(text)
    sources, (problem,) = find(["good", "bad.csv"])
    assert [source.name for source in sources] == ["good"]
    assert problem.startswith(str(place / "bad.csv")) and said in problem


def test_a_file_that_is_no_text_is_named_and_left_out(place):
    make_run("good")
    (place / "model.pt").write_bytes(b"\x80\x02\xff")
    assert "is not a log" in find(["good", "model.pt"])[1][0]


# ---- long ones, and what strangers may have made ----

HOSTILE = {
    "letters": "iter 1: " + "a" * 40_000, "words": "iter 1: " + "abc " * 10_000, "blanks": "iter 1: x" + " " * 40_000,
    "digits": "iter 1: x " + "1" * 40_000, "points": "iter 1: " + "1." * 20_000, "steps": "step " * 10_000,
    "one column a line": "".join(f"iter {n}: c{n} 1.0\n" for n in range(3_000)),
    "equal columns": "step," + "c," * 50_000 + "\n" + "1," * 50_001,
    "exported": "step," + "a - " * 10_000 + '"\n"\n' + "1,2\n",
    "a long cell": "step,loss\n" + "1" * 40_000 + ",2\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_log_takes_longer_than_its_size(place, text):
    (place / "bad.csv").write_text(text)
    began = time.monotonic()
    with pytest.raises(ValueError, match="bad.csv"):
        find(["bad.csv"])
    assert time.monotonic() - began < 2


def test_many_restarts_of_an_event_file_take_no_longer_than_their_number():
    rows = [Scalar("", step + (tag is None), tag, 0.0, 0.0) for step in range(20_000) for tag in ("loss", None)]
    began = time.monotonic()
    assert len([*standing(rows)]) == 20_000
    assert time.monotonic() - began < 1


def write_long(path: Path, num_rows: int = 100_000) -> None:
    """A log with an evaluation at each thousandth step, the lowest training loss and the largest norm at odd places."""
    loss, norm = np.linspace(5, 4, num_rows), np.ones(num_rows)
    loss[777], norm[33_333] = 0.125, 9.0
    pd.DataFrame({"step": np.arange(num_rows), "tokens": 8 * np.arange(num_rows), "train_loss": loss,
                  "val_loss": np.where(np.arange(num_rows) % 1000 == 999, loss + 1, np.nan),
                  "bits_per_byte": np.nan, "grad_norm": norm}).to_csv(path, index=False)


@pytest.mark.parametrize("word", ["toy", "theirs.csv"])
def test_of_a_long_log_as_many_rows_are_kept_as_a_picture_shows_and_all_that_decides(place, word):
    write_long(make_run("toy").path / "log.csv")
    write_long(place / "theirs.csv")
    table = only(word)
    assert 100_000 / 4 <= len(table) < 100_000 / 2
    assert table.val_loss.notna().sum() == 100
    assert (table.train_loss.min(), table.grad_norm.max()) == (0.125, 9.0)
    assert table.step.tolist() == sorted(table.step) and table.step.iloc[[0, -1]].tolist() == [0, 99_999]
    assert len(Run("toy").log()) == 100_000


def test_rows_of_two_kinds_that_take_turns_are_both_kept(place):
    lines = (f"{step},{5 - step / 1e6},\n{step},,{6 - step / 1e6}\n" for step in range(50_000))
    (place / "log.csv").write_text("step,train_loss,val_loss\n" + "".join(lines))
    table = only("log.csv")
    assert table.train_loss.notna().sum() > 10_000 and table.val_loss.notna().sum() > 10_000


# ---- Hugging Face ----


HISTORY = [{"loss": 3.5, "grad_norm": 0.5, "learning_rate": 1e-3, "epoch": 0.1, "num_input_tokens_seen": 800,
            "step": 10},
           {"eval_loss": 3.25, "eval_runtime": 2.5, "epoch": 0.1, "num_input_tokens_seen": 800, "step": 10},
           {"loss": 2.5, "grad_norm": float("nan"), "learning_rate": 5e-4, "epoch": 0.2, "num_input_tokens_seen": 1600,
            "step": 20},
           {"train_runtime": 9.5, "train_loss": 3.0, "total_flos": 1e9, "epoch": 0.2, "step": 20}]


def write_history(folder: Path, lines: object = HISTORY) -> Path:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"best_metric": None, "log_history": lines}))
    return folder


def test_the_state_of_hugging_faces_trainer_is_a_log(place):
    write_history(place / "bert" / "checkpoint-9", HISTORY[:1])
    saved = write_history(place / "bert" / "checkpoint-20")
    for word in ("bert", "bert/checkpoint-20", "bert/checkpoint-20/trainer_state.json"):
        (source,), problems = find([word])
        assert (source.name, source.path, problems) == ("checkpoint-20", saved / "trainer_state.json", [])
        table = source.table.set_index("step")
        assert table.train_loss.to_dict() == {10: 3.5, 20: 2.5} and table.val_loss.dropna().to_dict() == {10: 3.25}
        assert table.lr.tolist() == [1e-3, 5e-4] and table.tokens.tolist() == [800, 1600]
        assert table.grad_norm.dropna().to_dict() == {10: 0.5} and {"epoch", "eval_runtime"} < set(table)


@pytest.mark.parametrize("lines", [None, {}, [1], [[]], [], [{"loss": 2.5}], [{"step": "x", "loss": 2.5}],
                                   [{"step": 10**400, "loss": 1}], [{"step": 1, "loss": {"a": [1]}}]])
def test_a_state_that_holds_no_log_is_named_and_left_out(place, lines):
    make_run("good")
    write_history(place / "bad", lines)
    sources, (problem,) = find(["good", "bad"])
    assert [source.name for source in sources] == ["good"] and str(place / "bad") in problem


# ---- TensorBoard ----


def write_events(folder: Path, **options) -> None:
    with SummaryWriter(folder, **options) as writer:
        writer.add_text("config", "two layers")
        for step in range(0, 60, 10):
            writer.add_scalar("Loss/train", 4 - step / 64, step, walltime=1.7e9 + step / 2)
            if step % 20 == 0:
                writer.add_scalar("eval/loss", 5 - step / 64, step, walltime=1.7e9 + step / 2)
        writer.add_scalar("lr", 0.25, 45, walltime=1.7e9 + 22.5)


def test_scalars_of_tensorboard_are_joined_at_their_steps(place):
    write_events(place / "logs" / "mine")
    for word in ("logs/mine", "logs", "logs/*", next((place / "logs" / "mine").iterdir())):
        (source,), problems = find([str(word)])
        assert (source.name, source.run, problems) == ("mine", None, [])
        table = source.table.set_index("step")
        assert set(table) == {"train_loss", "val_loss", "lr", "seconds"}
        assert table.train_loss.dropna().to_dict() == {step: 4 - step / 64 for step in range(0, 60, 10)}
        assert table.val_loss.dropna().to_dict() == {step: 5 - step / 64 for step in range(0, 60, 20)}
        assert table.lr.dropna().to_dict() == {45: 0.25}
        assert table.seconds.to_dict() == {step: step / 2 for step in (0, 10, 20, 30, 40, 45, 50)}


def test_a_folder_of_curves_gives_each_and_the_parts_of_one_curve_are_one(place):
    for name in ("a", "b"):
        write_events(place / "logs" / name)
    for part, loss in (("train", 4.0), ("validation", 5.0)):
        with SummaryWriter(place / "logs" / "c" / part) as writer:
            writer.add_scalar("epoch_loss", loss, 1)
    with SummaryWriter(place / "logs" / "d") as writer:
        writer.add_scalars("loss", {"train": 2.0, "val": 3.0}, 1)
    sources, problems = find(["logs"])
    assert not problems
    assert [source.name for source in sources] == ["a", "b", "c", "d"]
    for source, losses in zip(sources[2:], ([4, 5], [2, 3]), strict=True):
        assert source.table[["train_loss", "val_loss"]].values.tolist() == [losses]


def test_what_a_run_recorded_before_it_went_on_from_an_earlier_step_is_void(place):
    with SummaryWriter(place / "logs", filename_suffix=".1") as writer:
        for step in (1, 2, 3, 4):
            writer.add_scalar("loss", step, step)
    with SummaryWriter(place / "logs", purge_step=3, filename_suffix=".2") as writer:
        writer.add_scalar("loss", 30, 3)
    assert only("logs")[["step", "train_loss"]].values.tolist() == [[1, 1], [2, 2], [3, 30]]


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:200] + b"\0" + data[201:]])
def test_a_cut_or_damaged_event_file_is_named_and_left_out(place, damage):
    make_run("good")
    write_events(place / "logs")
    (file,) = (place / "logs").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    sources, (problem,) = find(["good", "logs"])
    assert [source.name for source in sources] == ["good"]
    assert str(file) in problem and "half-written or damaged" in problem


def test_event_files_without_a_scalar_are_named_and_left_out(place):
    make_run("good")
    with SummaryWriter(place / "logs") as writer:
        writer.add_text("config", "two layers")
    assert "holds no numbers" in find(["good", "logs"])[1][0]


def test_our_own_event_files_give_our_own_log(go):
    run = go({"train.trackers": ("tensorboard",)})
    shutil.copytree(run.path / "tensorboard", "theirs")
    table, log = only("theirs"), run.log().dropna(axis=1, how="all")
    assert set(table) == set(log)
    np.testing.assert_array_equal(table[list(log)].to_numpy(np.float32), log.to_numpy(np.float32))
