"""A run's folder: what is written comes back exactly, half-written things are never seen, nothing good is lost."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from helpers import loss_of
from safetensors import safe_open
from small_runs import DATA

import runs
from config import Config, TrainConfig, replace
from model import Model
from optim import make_optimizer
from presets import tiny
from run_store.atomic_files import CHECKPOINT
from run_store.checkpoint import Checkpoint, Progress
from run_store.checkpoint_files import NotWritten
from run_store.unfinished import MARKER
from runs import COLUMNS, Run, free_name, saved_runs
from tokenizer import ByteTokenizer


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    return tmp_path / "models"


def make_run(name: str = "toy", *, tied: bool = False, **flags) -> Run:
    cfg = tiny(Config(train=TrainConfig(**flags)), vocab_size=259)
    cfg = replace(cfg, model=replace(cfg.model, tie_embeddings=tied, dim=16))
    return Run.create(name, cfg, ByteTokenizer(), DATA)


def learner(run: Run, *, seed: int = 0) -> tuple[Model, object]:
    """A model that took one step, so that the optimizer has a state."""
    torch.manual_seed(seed)
    model = Model(run.config.model)
    optimizer = make_optimizer(model, run.config.train)
    tokens = torch.randint(259, (2, 9))
    loss_of(model, tokens[:, :-1], tokens[:, 1:]).backward()
    optimizer.step()
    return model, optimizer


def save(run: Run, losses: dict[int, float | None]) -> None:
    """A checkpoint at each step, with its validation loss."""
    for step, loss in losses.items():
        run.save(*learner(run, seed=step), Progress(step=step, val_loss=loss))


def steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


# ---- a run ----


def test_a_run_is_listed_and_loads_as_it_was_made(models):
    made = make_run("b")
    make_run("a")
    (models / ".c.tmp").mkdir()
    (models / ".c.tmp" / "config.json").write_text("{}")
    (models / "no-run").mkdir()
    assert saved_runs() == ["a", "b"]
    for where in ("b", models / "b", str(models / "b")):
        run = Run(where)
        assert (run.name, run.config, run.data) == ("b", made.config, DATA)
        assert run.tokenizer().fingerprint == ByteTokenizer().fingerprint
    environment = json.loads((models / "b" / "environment.json").read_text())
    assert environment["torch"] == torch.__version__


def test_a_folder_of_the_same_name_elsewhere_hides_no_run(models, tmp_path, monkeypatch):
    make_run("toy")
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Run("toy").path == models / "toy"


def test_what_is_no_run_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="nowhere is not a run: .*no runs yet"):
        Run("nowhere")
    make_run("here")
    with pytest.raises(ValueError, match="nowhere is not a run: .*there are here"):
        Run("nowhere")


def test_a_name_is_given_once(models):
    make_run("toy")
    before = (models / "toy" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="train.name=toy is taken"):
        make_run("toy", steps=7)
    assert (models / "toy" / "config.json").read_bytes() == before
    assert free_name("toy") == "toy-2"
    make_run("toy-2")
    assert (free_name("toy"), free_name("other")) == ("toy-3", "other")


def test_an_unfinished_folder_does_not_stand_in_the_way(models):
    (models / ".toy.tmp" / "tokenizer").mkdir(parents=True)
    assert make_run("toy").name == "toy"
    assert sorted(path.name for path in models.iterdir()) == [".toy.tmp", "toy"]


def test_damaged_data_is_a_sentence(models):
    run = make_run()
    (run.path / "data.json").write_text("{")
    with pytest.raises(ValueError, match="data.json cannot be read"):
        _ = run.data


def test_a_run_is_locked_once_and_free_again_after_an_error(models):
    run = make_run()
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(KeyError), run.locked():
        with pytest.raises(ValueError, match="^toy is being trained by another process"), Run("toy").locked():
            pass
        raise KeyError
    with Run("toy").locked(), make_run("other").locked():
        pass
    assert (run.path / "config.json").read_bytes() == before


# ---- log and samples ----


def test_the_log_comes_back_exactly():
    run, third = make_run(), 1 / 3
    run.append({"step": 1, "tokens": 64, "train_loss": third, "lr": 3e-3, "flops": 1e15 + 1})
    run.append({"step": 2, "tokens": 128, "train_loss": 2 * third, "val_loss": 0.1 + 0.2})
    log = Run("toy").log()
    assert tuple(log.columns) == COLUMNS
    assert log.step.tolist() == [1, 2]
    assert log.train_loss.tolist() == [third, 2 * third]
    assert (log.lr[0], log.flops[0], log.val_loss[1]) == (3e-3, 1e15 + 1, 0.1 + 0.2)
    assert pd.isna(log.val_loss[0])


def test_a_column_that_the_log_lacks_is_an_error():
    run = make_run()
    run.append({"step": 1, "balance": 3.0})
    with pytest.raises(ValueError, match="losss"):
        run.append({"step": 2, "losss": 2.0})
    assert tuple(run.log().columns) == (*COLUMNS, "balance")


def test_points_are_the_lines_that_have_all_of_some_columns_as_the_table_has_them():
    run, third = make_run(), 1 / 3
    assert pytest.raises(ValueError, run.points, "step").match(r"toy: log.csv is missing$")
    run.append({"step": 1, "train_loss": third, "lr": 3e-3})
    run.append({"step": 2, "train_loss": 0.0, "val_loss": 0.1 + 0.2})
    assert run.points("step", "train_loss") == [(1, third), (2, 0.0)]
    assert run.points("val_loss", "step") == [(0.1 + 0.2, 2)]
    assert run.points("step", "balance") == []
    assert run.points("train_loss") == [(loss,) for loss in run.log().train_loss]
    run.append({"step": 3, "lr": "much"})
    with (run.path / "log.csv").open("a") as cut:
        cut.write("4,")  # a kill in the middle of a line
    assert run.points("step") == [(1,), (2,), (3,)]
    assert pytest.raises(ValueError, run.points, "lr").match(r"toy: log.csv cannot be read: .*'much'$")


def test_no_log_is_a_sentence():
    with pytest.raises(ValueError, match="log.csv is missing"):
        make_run().log()


def test_samples_come_back_whatever_they_say():
    run, text = make_run(), "a \"b\"\n\u2028 é\x85 \udc80"
    run.append_samples(3, [{"prompt": "a", "text": text}, {"prompt": "", "text": ""}])
    run.append_samples(6, [{"prompt": "a", "text": "c"}])
    assert [(s["step"], s["text"]) for s in run.samples()] == [(3, text), (3, ""), (6, "c")]
    assert make_run("other").samples() == []


def test_going_back_drops_what_came_after_to_the_byte():
    run, log, samples = make_run(), {}, {}
    for step in (2, 4, 6):
        run.append({"step": step, "train_loss": 1 / step})
        run.append_samples(step, [{"prompt": "", "text": str(step)}] * 2)
        log[step], samples[step] = ((run.path / name).read_bytes() for name in ("log.csv", "samples.jsonl"))
    with (run.path / "log.csv").open("a") as cut, (run.path / "samples.jsonl").open("a") as cut_too:
        cut.write("4")  # a kill in the middle of a line
        cut_too.write('{"step": 4')
    (run.path / "grades.json").touch()
    (run.path / "loss.png").touch()
    assert run.is_finished
    for step, expected in ((6, 6), (5, 4), (4, 4)):
        run.forget_after(step)
        assert (run.path / "log.csv").read_bytes() == log[expected]
        assert (run.path / "samples.jsonl").read_bytes() == samples[expected]
    assert not run.is_finished and not (run.path / "grades.json").exists()
    run.forget_after(0)
    assert run.log().empty and run.samples() == []


@pytest.mark.parametrize("content", ["", "step,tok"], ids=["empty", "cut"])
def test_a_log_killed_in_its_first_line_begins_anew(content):
    run = make_run()
    (run.path / "log.csv").write_text(content)
    run.forget_after(0)
    run.append({"step": 1})
    assert run.log().step.tolist() == [1]


# ---- checkpoints ----


def test_a_checkpoint_restores_weights_optimizer_and_random_state():
    run = make_run()
    model, optimizer = learner(run)
    progress = Progress(step=5, tokens=7, seconds=1 / 3, flops=2.0, val_loss=0.1, recent_losses=[1 / 7, 2.0])
    run.save(model, optimizer, progress)
    drawn = torch.rand(3)
    other, other_optimizer = learner(run, seed=1)
    assert Run("toy").checkpoint("last").load_training(other, other_optimizer) == progress
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for a, b in zip(optimizer.state_dict(), other_optimizer.state_dict(), strict=True):
        torch.testing.assert_close(a["state"], b["state"], atol=0, rtol=0)
        assert a["param_groups"] == b["param_groups"]


def test_shared_weights_are_saved_once_and_stay_shared():
    run = make_run(tied=True)
    save(run, {1: None})
    with safe_open(run.checkpoint("last").path / "model.safetensors", framework="pt") as file:
        assert len({"embed.tokens.weight", "head.unembed.weight"} & set(file.keys())) == 1
    model = run.load_model("last")
    assert model.head.unembed.weight is model.embed.tokens.weight
    assert torch.equal(model.embed.tokens.weight, learner(run, seed=1)[0].embed.tokens.weight)


def test_a_loaded_model_is_that_of_the_checkpoint_and_ready_to_use():
    run = make_run(keep_checkpoints=9)
    save(run, {10: 3.0, 20: 1.0, 30: 2.0})
    for which, seed in {"best": 20, "last": 30, "10": 10}.items():
        model = run.load_model(which)
        assert not model.training
        expected = learner(run, seed=seed)[0]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize(("losses", "best"), [
    ({1: 3.0, 2: 1.0, 3: 2.0}, 2), ({1: 1.0, 2: 1.0}, 1), ({1: 2.0, 2: None}, 1), ({1: None, 2: None}, 2)], ids=str)
def test_the_best_has_the_lowest_validation_loss(losses, best):
    run = make_run(keep_checkpoints=9)
    save(run, losses)
    assert run.checkpoint("best").step == best
    assert run.checkpoint("last").step == max(losses)


@pytest.mark.parametrize("which", ["40", "first", "-1", "²"])
def test_a_checkpoint_that_is_not_there_is_refused_with_the_steps_there_are(which):
    run = make_run()
    with pytest.raises(ValueError, match=rf"checkpoint={which} .*none yet"):
        run.checkpoint(which)
    save(run, {10: 1.0, 20: 2.0})
    with pytest.raises(ValueError, match=rf"checkpoint={which} .*a step \(10, 20\)"):
        run.checkpoint(which)


@pytest.mark.parametrize(("keep", "kept"), [(1, [2, 6]), (2, [2, 5, 6]), (9, [1, 2, 3, 4, 5, 6])])
def test_the_newest_and_the_best_are_kept(keep, kept):
    run = make_run(keep_checkpoints=keep)
    save(run, {1: 5.0, 2: 1.0, 3: 4.0, 4: None, 5: 3.0, 6: 2.0})
    assert steps(run) == kept
    assert len(list((run.path / "checkpoints").iterdir())) == len(kept)


def test_a_save_that_was_cut_short_is_never_seen():
    run = make_run()
    save(run, {1: 1.0})
    half = run.path / "checkpoints" / ".step_00000002.0a1b2c3d.tmp"
    half.mkdir()
    (half / MARKER).touch()
    (half / "model.safetensors").write_bytes(b"half")
    assert steps(run) == [1]
    save(run, {2: 2.0})
    assert steps(run) == [1, 2] and run.checkpoints()[1].problem() is None
    run.forget_after(2)
    assert not half.exists()


def test_a_checkpoint_whose_successor_never_came_is_put_back():
    run = make_run()
    save(run, {1: 1.0})
    path = run.checkpoint("last").path
    path.rename(path.with_name(f".{path.name}.before.tmp"))  # as a kill between two renames leaves it
    assert steps(run) == []
    assert run.drop_damaged() == [] and steps(run) == [1]
    run.forget_after(1)
    assert steps(run) == [1] and run.checkpoint("last").problem() is None


def test_a_damaged_older_checkpoint_does_not_end_a_save(capsys):
    run = make_run(keep_checkpoints=1)
    save(run, {1: 1.0, 2: 2.0})
    (run.checkpoint("1").path / "progress.json").write_text("{")
    save(run, {3: 3.0})
    assert steps(run) == [1, 2, 3] and "warning: old checkpoints are kept: " in capsys.readouterr().err


def test_a_copy_of_a_checkpoint_under_another_name_is_none():
    run = make_run()
    save(run, {1: 1.0})
    shutil.copytree(run.checkpoint("last").path, run.path / "checkpoints" / "step_1_mine")
    assert steps(run) == [1]


def test_a_step_saved_again_is_replaced():
    run = make_run()
    save(run, {1: 1.0})
    run.save(*learner(run, seed=7), Progress(step=1, val_loss=2.0))
    assert run.checkpoint("last").progress.val_loss == 2.0
    assert torch.equal(run.load_model("last").embed.tokens.weight, learner(run, seed=7)[0].embed.tokens.weight)


def test_a_save_without_room_leaves_the_others_whole(monkeypatch):
    run = make_run()
    save(run, {1: 1.0})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NotWritten, match=r"step_00000002 cannot be written \(.*No space left"):
        save(run, {2: 0.5})
    assert steps(run) == [1] and run.checkpoint("last").problem() is None
    assert len(list((run.path / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("change", ["cut", "empty", "flipped", "gone"])
@pytest.mark.parametrize("name", [*CHECKPOINT, "SHA256SUMS"])
def test_a_changed_byte_anywhere_is_noticed(name, change):
    run = make_run()
    save(run, {1: 1.0})
    file = run.checkpoint("last").path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "flipped": content}[change])
    checkpoint = Checkpoint(file.parent)
    assert f"{file.parent} is damaged: " in checkpoint.problem()
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load_training(*learner(run))


def test_damaged_checkpoints_are_dropped_only_where_a_whole_one_is_left():
    run = make_run(keep_checkpoints=9)
    save(run, {1: 1.0, 2: 2.0, 3: 3.0})
    assert run.drop_damaged() == []
    for step in (1, 3):
        (run.checkpoint(str(step)).path / "progress.json").write_text("{")
    assert len(run.drop_damaged()) == 2
    assert steps(run) == [2]
    (run.checkpoint("2").path / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="toy has no whole checkpoint .*delete"):
        run.drop_damaged()
    assert steps(run) == [2]


def test_weights_of_another_architecture_are_refused():
    run = make_run()
    save(run, {1: 1.0})
    other = Model(replace(run.config.model, dim=32))
    with pytest.raises(ValueError, match="does not fit its configuration"):
        run.checkpoint("last").load_weights(other)


@pytest.mark.slow
def test_a_model_that_is_only_measured_has_the_shapes_of_the_model_and_wakes_no_compiler():
    code = """
import sys
sys.path.append("tests")
import experiments.comparing.comparison
from helpers import small_config
from model import Model
from modules.mixers import MIXERS
from tools import unfilled
configs = [small_config(mixer=mixer, norm=norm) for mixer in MIXERS for norm in ("rms", "dyt")]
configs += [small_config(position=position, tie_embeddings=False) for position in ("learned", "sinusoidal", "alibi")]
with unfilled():
    models = [Model(cfg) for cfg in configs]
for model, whole in zip(models, map(Model, configs), strict=True):
    shapes = [{name: value.shape for name, value in it.state_dict().items()} for it in (model, whole)]
    assert shapes[0] == shapes[1] and all(weight.is_meta for weight in model.parameters())
    assert model.num_parameters() == whole.num_parameters()
assert not {"sympy", "torch._dynamo"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, check=True)
