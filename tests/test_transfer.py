"""Weights of another run: what fits is copied to the bit, what does not is named and never guessed."""

import shutil
from pathlib import Path

import pytest
import torch
from lives import QUIET, interrupt
from rich.console import Console
from safetensors.torch import load_file, save_file
from small_runs import assert_same_run, weights, write_text_file

from config import override
from model import Model
from runs import Run
from tokenizer import CharTokenizer
from train import Interrupted
from train import train as train_run
from training.transfer import find_source, load_weights, same_ids

pytestmark = pytest.mark.usefixtures("models")
STILL = {"train.steps": 1, "train.lr": 1e-30, "train.weight_decay": 0.0}  # a step that moves nothing


@pytest.fixture
def source(reference, models):
    """A run to begin from, in models/ under the name "source"."""
    return Run(shutil.copytree(reference.path, models / "source"))


def best(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint("best").path / "model.safetensors")


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


# ---- what fits ----


@pytest.mark.parametrize("where", ["name", "run", "checkpoint", "file", "plain file"])
@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_a_run_a_folder_or_a_file(go, source, tmp_path, where):
    checkpoint = source.checkpoint("best").path
    plain = shutil.copy(checkpoint / "model.safetensors", tmp_path / "mine.safetensors")
    name = {"name": "source", "run": source.path, "checkpoint": checkpoint, "file": checkpoint / "model.safetensors",
            "plain file": plain}[where]
    run = go(STILL | {"train.init_from": str(name)})
    assert_same_weights(weights(run), best(source))
    assert Path(run.config.train.init_from) == (plain if where == "plain file" else checkpoint / "model.safetensors")


@pytest.mark.parametrize("changes", [{"train.optimizer": "schedule_free", "train.schedule": "constant"},
                                     {"train.ema_decay": 0.9}], ids=str)
def test_weights_begin_a_run_whatever_averages_them(go, source, at_step, changes):
    changes = changes | {"train.init_from": "source"}
    whole = go(changes | {"train.name": "whole"})
    at_step(2, interrupt)
    with pytest.raises(Interrupted):
        go(changes)
    assert_same_weights(load_file(Run("toy").checkpoint("0").path / "model.safetensors"), best(source))
    shutil.rmtree(Run("toy").path / "checkpoints" / "step_00000002")
    assert_same_run(train_run(Run("toy").config, run=Run("toy"), console=QUIET), whole)


def test_new_text_and_a_new_rate_need_the_same_model_only(go, source, tmp_path):
    text = write_text_file(tmp_path / "new.txt", seed=5)
    run = go({"train.init_from": "source", "data.name": str(text), "train.lr": 1e-3, "train.optimizer": "adamw"})
    fresh = go({"train.name": "fresh", "data.name": str(text), "train.lr": 1e-3, "train.optimizer": "adamw"})
    assert run.log().val_loss.dropna().iloc[0] < fresh.log().val_loss.dropna().iloc[0]


def test_a_run_that_began_with_weights_goes_on_without_their_source(go, source, at_step):
    whole = go({"train.init_from": "source", "train.name": "whole"})
    at_step(2, interrupt)
    with pytest.raises(Interrupted):
        go({"train.init_from": "source"})
    shutil.rmtree(Run("toy").path / "checkpoints" / "step_00000002")  # as if it had been killed
    shutil.rmtree(source.path)
    assert_same_run(train_run(Run("toy").config, run=Run("toy"), console=QUIET), whole)


@pytest.mark.slow
def test_tied_weights_begin_a_tied_model_and_an_untied_one(go, models):
    tied = go({"model.tie_embeddings": True, "train.name": "tied", "model.head_bias": True})
    again = go(STILL | {"model.tie_embeddings": True, "train.init_from": "tied", "model.head_bias": True})
    assert_same_weights(weights(again), best(tied))
    apart = weights(go(STILL | {"train.init_from": "tied", "train.name": "apart", "model.head_bias": True}))
    assert torch.equal(apart["head.unembed.weight"], apart["embed.tokens.weight"])
    with pytest.raises(ValueError, match=r"unknown here: head.unembed.weight \(here it is embed.tokens.weight\)"):
        go({"model.tie_embeddings": True, "train.init_from": "untied", "train.name": "x"} | {"train.init_from": str(
            go({"train.name": "untied"}).path)})


# ---- what does not ----


def test_tensors_that_do_not_fit_are_named_by_their_reason_and_nothing_is_made(go, source, models):
    changes = {"train.init_from": "source", "model.num_layers": 1, "model.hidden_dim": 20, "model.head_bias": True}
    with pytest.raises(ValueError) as error:
        go(changes)
    assert str(error.value) == (
        f"train.init_from={source.checkpoint('best').path / 'model.safetensors'} does not fit "
        "(missing there: head.unembed.bias; unknown here: " + ", ".join(sorted(
            name for name in best(source) if name.startswith("blocks.1."))[:8]) +
        "; of another shape: blocks.0.mlp.branch.up.weight (24, 16) instead of (20, 16), "
        "blocks.0.mlp.branch.out.weight (16, 24) instead of (16, 20)): --allow-partial begins these fresh")
    assert [path.name for path in models.iterdir()] == ["source"]


def test_what_does_not_fit_begins_fresh_where_that_is_allowed(go, source, capsys):
    changes = STILL | {"model.hidden_dim": 20}
    run = go(changes | {"train.init_from": "source", "train.allow_partial": True}, console=Console(width=500))
    fresh = weights(go(changes | {"train.name": "fresh"}))
    assert "what does not fit begins fresh (of another shape: blocks.0.mlp.branch.up.weight" in capsys.readouterr().out
    for name, tensor in weights(run).items():
        expected = (fresh if ".mlp.branch." in name else best(source))[name]
        assert torch.allclose(tensor, expected, atol=1e-25, rtol=0), name  # zeros move by the rate


def test_where_nothing_fits_partial_is_not_allowed_either(go, source, tmp_path):
    save_file({"wte.weight": torch.zeros(3, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has no tensor that fits"):
        go({"train.init_from": str(tmp_path / "other.safetensors"), "train.allow_partial": True})
    (tmp_path / "other.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="train.init_from=.*other.safetensors cannot be read"):
        go({"train.init_from": str(tmp_path / "other.safetensors")})


# ---- vocabularies ----


def test_a_larger_vocabulary_of_the_same_ids_keeps_the_rows_in_common(go, source):
    larger = STILL | {"model.vocab_size": 30}
    with pytest.raises(ValueError, match=r"embed.tokens.weight \(24, 16\) instead of \(30, 16\)"):
        go(larger | {"train.init_from": "source"})
    run = weights(go(larger | {"train.init_from": "source", "train.allow_partial": True}))
    fresh = weights(go(larger | {"train.name": "fresh"}))
    for name in ("embed.tokens.weight", "head.unembed.weight"):
        assert torch.equal(run[name][:24], best(source)[name])
        assert torch.equal(run[name][24:], fresh[name][24:])


def test_rows_of_other_tokens_are_named_though_their_shape_fits(go, source, tmp_path):
    text = tmp_path / "other.txt"
    text.write_text(Path(source.config.data.name[0]).read_text().translate(str.maketrans("abcdefgh", "ABCDEFGH")))
    changes = STILL | {"train.init_from": "source", "data.name": str(text)}
    with pytest.raises(ValueError, match="of other token ids: embed.tokens.weight, head.unembed.weight.*allow-partial "
                                         r".*--tokenizer.path .*source/tokenizer keeps its ids"):
        go(changes)
    run, fresh = go(changes | {"train.allow_partial": True}), go(STILL | {"data.name": str(text), "train.name": "b"})
    assert torch.equal(weights(run)["embed.tokens.weight"], weights(fresh)["embed.tokens.weight"])
    assert torch.equal(weights(run)["blocks.0.mixer.branch.q.weight"], best(source)["blocks.0.mixer.branch.q.weight"])


@pytest.mark.parametrize(("a", "b", "agree"), [("abc", "abc", True), ("abc", "abcd", True), ("abc", "abd", False),
                                               ("bcd", "abcd", False)])
def test_tokenizers_agree_where_each_common_id_stands_for_the_same(a, b, agree):
    assert same_ids(CharTokenizer(a), CharTokenizer(b)) is agree
    assert same_ids(CharTokenizer(b), CharTokenizer(a)) is agree


def test_a_refusal_leaves_the_model_as_it_was(source):
    torch.manual_seed(3)
    model = Model(override(source.config, {"model.hidden_dim": 20}).model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(find_source("source"), model, source.tokenizer(), allow_partial=False)
    assert_same_weights(model.state_dict(), before)
