"""The share of a run's stories that are grammatical and consistent: as `tales.grade` has it, asked once."""

import json
from itertools import islice
from math import sqrt

import pytest
from rich.console import Console
from small_runs import small_run_config

import runs
import tales
import train
from config import override
from experiments.common import caches
from experiments.comparing import grades
from experiments.comparing.grades import CACHE, LONGEST, Grades, grade_run
from inference import continue_prompts

TALES = {"data.name": "tales", "data.num_stories": 30, "tokenizer.kind": "bpe", "tokenizer.vocab_size": 128,
         "train.name": "teller", "train.steps": 4, "train.eval_every": 2, "train.checkpoint_every": 2,
         "train.graded_stories": 0}


@pytest.fixture(scope="module")
def teller(folder):
    """A run on tales, with two checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", folder / "models")
        return train.train(override(small_run_config(folder), TALES), console=Console(quiet=True))


@pytest.fixture
def calls(teller, monkeypatch):
    """What was asked of the model; it writes half a tale, a whole one, one that breaks, and so on."""
    asked = []

    def write(model, tokenizer, cfg):
        asked.append(cfg)
        texts = [story.text.removeprefix("Once") for story in islice(tales.stories(7), cfg.num_samples)]
        for number in range(0, len(texts), 3):
            texts[number] = texts[number][:100]
        for number in range(2, len(texts), 3):
            texts[number] = texts[number][:50] + "#" + texts[number][50:]
        return texts

    monkeypatch.setattr(grades, "continue_prompts", write)
    (teller.path / CACHE).unlink(missing_ok=True)
    return asked


def test_the_share_is_that_of_the_grammar_with_wilsons_interval(teller, calls):
    found = grade_run(teller, num_stories=10)
    judged = [tales.grade(text) for text in found.texts]
    assert found.grades == tuple(judged) and all(text.startswith("Once") for text in found.texts)
    assert (found.num_passed, found.count, found.share) == (3, 10, 0.3)
    middle, half = (0.3 + 1.96**2 / 20) / (1 + 1.96**2 / 10), sqrt(0.3 * 0.7 / 10 + (1.96 / 20) ** 2)
    half *= 1.96 / (1 + 1.96**2 / 10)  # Wilson 1927
    assert found.interval == pytest.approx((middle - half, middle + half), abs=1e-4)


def test_where_stories_break_is_told_by_kind_and_place(teller, calls):
    found = grade_run(teller, num_stories=10)
    assert found.kinds == {"unfinished": 4, "grammar": 3}
    assert found.break_at == 104  # four break at their end, after 104 characters, three at the 54th
    assert str(found) == ("3 of 10 stories are grammatical and consistent (11% to 60%); the others break "
                          "(unfinished 4, grammar 3), half of them within 104 characters")


def test_where_every_story_is_whole_nothing_breaks(teller):
    text = tales.story(3, 0).text
    found = Grades(4, (text,), (tales.grade(text),))
    assert found.kinds == {} and found.break_at is None
    assert str(found) == "1 of 1 stories are grammatical and consistent (21% to 100%)"


def test_a_checkpoint_is_graded_once_and_another_or_more_stories_anew(teller, calls):
    first = grade_run(teller, num_stories=4)
    assert grade_run(teller, num_stories=4) == first and len(calls) == 1
    grade_run(teller, num_stories=5)
    assert len(calls) == 2
    steps = [checkpoint.step for checkpoint in teller.checkpoints()]
    assert {grade_run(teller, num_stories=4, checkpoint=str(step)).step for step in steps} == set(steps) == {2, 4}
    assert len(calls) == 3  # the best is one of the two
    assert len(json.loads((teller.path / CACHE).read_text())) == 3


def test_a_damaged_cache_is_made_again(teller, calls):
    first = grade_run(teller, num_stories=4)
    (teller.path / CACHE).write_text('{"half')
    assert grade_run(teller, num_stories=4) == first and len(calls) == 2


def test_where_the_folder_refuses_a_file_the_grades_are_told_all_the_same(teller, calls, monkeypatch, capsys):
    def refuse(path, text):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(caches, "write_text", refuse)
    assert grade_run(teller, num_stories=3).count == 3
    assert "Read-only file system" in capsys.readouterr().err


def test_the_model_itself_writes_the_stories_with_room_for_the_longest(teller, calls, monkeypatch):
    monkeypatch.setattr(grades, "continue_prompts", lambda *args: calls.append(args[2]) or continue_prompts(*args))
    found = grade_run(teller, num_stories=2)
    assert found.num_passed == 0 and found.texts[0] != found.texts[1]
    (cfg,) = calls
    longest = max((story.text for story in islice(tales.stories(0), 500)), key=len)
    assert len(longest.encode()) <= LONGEST
    assert len(teller.tokenizer().encode(longest)) < cfg.max_new_tokens < 3 * len(teller.tokenizer().encode(longest))


def test_a_run_on_another_text_has_no_grades(reference):
    assert grade_run(reference, num_stories=3) is None


def test_no_stories_are_refused(teller):
    with pytest.raises(ValueError, match="num_stories=0 is not a number of stories"):
        grade_run(teller, num_stories=0)
