"""The runs of a comparison continue the same prompts."""

from pathlib import Path

import pandas as pd
import pytest

from config import SampleConfig
from experiments.comparing.compare_page import same_prompts
from experiments.comparing.lines import Line
from experiments.comparing.sources import CurveSource
from inference import continue_prompts
from runs import Run


def line(*runs: Run | None, name: str = "") -> Line:
    members = tuple(CurveSource(run.name if run else name, pd.DataFrame(), run, Path(name)) for run in runs)
    return Line(name or runs[0].name, members, pd.DataFrame(), None, None)


@pytest.fixture
def byte_run(go, models):
    """Two steps with another tokenizer, and a prompt of its own that the reference's alphabet lacks."""
    return go({"train.name": "bytes", "tokenizer.kind": "byte", "train.steps": 2, "sample.prompts": ("the old", "É")})


def test_texts_are_what_the_best_checkpoint_writes_with_the_seed(reference):
    (texts,) = same_prompts([line(reference)], ["the old", "red"], num=2, num_bytes=40, seed=3).values()
    tokenizer = reference.tokenizer()
    cfg = SampleConfig(prompts=("the old", "red"), num_samples=2, max_new_tokens=40, seed=3)  # a token is a byte
    expected = continue_prompts(reference.load_model("best"), tokenizer, cfg)
    prompts = ["the old", "the old", "red", "red"]
    assert texts == [{"prompt": prompt, "text": prompt + new} for prompt, new in zip(prompts, expected, strict=True)]
    assert texts[0] != texts[1]


def test_every_run_continues_the_prompts_of_all_as_far_as_it_can_write_them(reference, byte_run):
    texts = same_prompts([line(reference), line(byte_run)], num_bytes=30)
    assert {name: [text["prompt"] for text in of_run] for name, of_run in texts.items()} == {
        "toy": ["", "the old"], "bytes": ["", "the old"]}


def test_where_no_prompt_suits_all_texts_begin_from_nothing(reference, monkeypatch):
    monkeypatch.setattr("experiments.comparing.compare_page.prompts_or_opening", lambda *_: ("É",))
    (texts,) = same_prompts([line(reference)], num_bytes=10).values()
    assert [text["prompt"] for text in texts] == [""]


def test_a_given_prompt_that_a_run_cannot_write_is_a_mistake(reference, byte_run):
    with pytest.raises(ValueError, match="prompts='É' has characters that the tokenizer of toy does not know"):
        same_prompts([line(byte_run), line(reference)], ["É"])


def test_the_first_seed_of_a_line_writes_for_it(reference, byte_run):
    texts = same_prompts([line(byte_run, reference, name="both")], ["the"], num_bytes=20)
    assert texts == {"both": same_prompts([line(byte_run)], ["the"], num_bytes=20)["bytes"]}


def test_foreign_logs_write_nothing():
    assert same_prompts([line(None, name="theirs.csv")], ["the"]) == {}


def test_a_run_whose_weights_are_damaged_is_named_and_the_others_write(reference, byte_run, capsys):
    (byte_run.checkpoint("best").path / "model.safetensors").write_bytes(b"")
    texts = same_prompts([line(byte_run), line(reference)], ["the"], num_bytes=10)
    assert list(texts) == ["toy"]
    assert capsys.readouterr().err.startswith("warning: bytes writes no texts: ")
