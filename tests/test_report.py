"""What a run says: stories graded as the corpus grades them, samples, the curve."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from small_runs import DATA, small_run_config

import inference
import runs
import tales
from config import DataConfig, SampleConfig, override, replace
from model import Model
from optimizing.schedules import Schedule
from run_store.checkpoint import Progress
from runs import Run
from tokenizer import ByteTokenizer, CharTokenizer
from training import report
from training.evaluation import Evaluation
from training.report import draw_loss, grade_stories, opening_prompts, plot_loss, print_evaluation, shown, write_samples

WHOLE = tales.story(0, 0).text


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    cfg = override(small_run_config(tmp_path), {"model.vocab_size": 259})
    return Run.create("toy", cfg, ByteTokenizer(), DATA)


@pytest.fixture
def write(monkeypatch):
    """Have the model write these texts, whatever its weights."""
    def pretend(*texts: str) -> None:
        new = [[byte + 3 for byte in text.removeprefix("Once").encode()] for text in texts]
        monkeypatch.setattr(inference, "as_objective", lambda _: SimpleNamespace(
            generate=lambda ids, cfg, eos_id, num_ids: new[: len(ids)]))

    return pretend


# ---- grades ----


def test_grades_are_those_of_the_corpus_and_kept(run, write):
    texts = [WHOLE, WHOLE[: len(WHOLE) // 2], "Once" + "x" * 9 + WHOLE]
    write(*texts)
    said = grade_stories(run, None, ByteTokenizer(), 3)
    kept = json.loads((run.path / "grades.json").read_text())
    assert [line["text"] for line in kept] == texts
    assert kept == [asdict(tales.grade(text)) | {"text": text} for text in texts]
    assert [line["passed"] for line in kept] == [True, False, False]
    first, *examples = said.splitlines()
    assert first.startswith("1 of 3 stories are grammatical and consistent; the others break (")
    assert "unfinished 1" in first and "grammar 1" in first
    assert "half of them in the first 100%" in first  # one at its start, one at its end
    assert examples == [f"  {tales.grade(text).message}" for text in texts[1:]]


def test_where_all_stories_are_whole_nothing_breaks(run, write):
    write(WHOLE, WHOLE)
    assert grade_stories(run, None, ByteTokenizer(), 2) == "2 of 2 stories are grammatical and consistent"


def test_at_most_three_examples_are_named(run, write):
    write(*[WHOLE[:-5]] * 5)
    said = grade_stories(run, None, ByteTokenizer(), 5)
    assert said.startswith("0 of 5") and "(unfinished 5)" in said
    assert said.count("\n") == 3


def test_stories_are_drawn_from_their_first_word_at_temperature_0_8(run, monkeypatch):
    asked = []

    def note(ids, cfg, eos_id, num_ids):
        asked.append((ids, cfg))
        return [[] for _ in ids]

    monkeypatch.setattr(inference, "as_objective", lambda _: SimpleNamespace(generate=note))
    grade_stories(run, None, ByteTokenizer(), 2)
    ((ids, cfg),) = asked
    assert ids == [ByteTokenizer().encode("Once", bos=True)] * 2
    assert (cfg.temperature, cfg.top_k, cfg.max_new_tokens) == (0.8, None, 2 * run.config.model.max_seq_len)


# ---- samples ----


def test_samples_open_as_the_corpus_does_or_with_the_prompts_given(tmp_path):
    cfg = small_run_config(tmp_path)
    assert opening_prompts(cfg, ByteTokenizer()) == ["", ""]
    tales_cfg = replace(cfg, data=DataConfig())
    assert opening_prompts(tales_cfg, ByteTokenizer()) == ["Once", "Once"]
    given = override(tales_cfg, {"sample.prompts": ("a", "b")})
    assert opening_prompts(given, ByteTokenizer()) == ["a", "a", "b", "b"]
    with pytest.raises(ValueError, match="'b'"):
        opening_prompts(given, CharTokenizer("a"))


def test_a_sample_is_its_prompt_and_what_follows_and_moves_nothing(run):
    torch.manual_seed(0)
    model = Model(run.config.model).train()
    state = torch.get_rng_state()
    samples = write_samples(model, ByteTokenizer(), ["fox", ""], SampleConfig(max_new_tokens=4, temperature=0.0))
    assert [sample["prompt"] for sample in samples] == ["fox", ""]
    assert samples[0]["text"].startswith("fox") and len(samples[0]["text"]) > 3
    assert model.training and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("prompts", "words"), [(["Once"], "Once"), ([""], "''"), (['say "hi"', "b"], "'say \"hi\"'")])
def test_the_end_tells_how_to_write_more_after_the_runs_first_prompt(run, prompts, words, capsys, monkeypatch):
    monkeypatch.setattr(report, "plot_loss", lambda runs, path: None)
    report.finish(Console(width=30), run, None, ByteTokenizer(), prompts)
    assert capsys.readouterr().out.endswith(f"\nwrite more: python inference.py toy {words}\n")


# ---- lines and curves ----


def test_an_evaluation_is_set_against_the_floor_where_it_is_known(run, capsys):
    evaluation, progress = Evaluation(loss=2.0, bits_per_byte=1.5, accuracy=0.25), Progress(step=1234, seconds=7.0)
    print_evaluation(Console(width=20), run, progress, evaluation)
    run.data["floor_bits_per_byte"] = 0.5
    print_evaluation(Console(width=20), run, progress, evaluation)
    unknown, known = capsys.readouterr().out.splitlines()
    assert unknown == "step  1,234      7 s  val loss 2.0000  bits/byte 1.5000  accuracy 25.0%"
    assert "bits/byte 1.5000 (3.00 x the floor 0.500)" in known


def test_a_curve_shows_every_run_and_the_floor_in_bits_per_byte(run, tmp_path):
    run.append({"step": 1, "tokens": 10, "train_loss": 2.0})
    run.append({"step": 2, "tokens": 20, "train_loss": 1.0, "val_loss": 1.5, "bits_per_byte": 0.9})
    run.data.update(val_tokens_per_byte=0.5, floor_bits_per_byte=0.4)
    lines = {line.get_label(): line.get_xydata().tolist() for line in draw_loss([run]).axes[0].get_lines()}
    bits = 0.5 / math.log(2)
    assert lines["toy, validation"] == [[20, 0.9]]
    assert lines["toy, training"] == [[10, pytest.approx(2 * bits)], [20, pytest.approx(bits)]]
    assert [y for _, y in lines["entropy of the text, 0.400"]] == [0.4, 0.4]
    plot_loss([run], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / ".curve.png").exists()


def test_a_run_is_announced_with_its_size_and_work(run, tmp_path, capsys):
    class Forty:
        num_tokens, rows_per_epoch = 640, 40

    model = Model(run.config.model)
    setup = SimpleNamespace(schedule=Schedule(run.config), batches=Forty, device=torch.device("cpu"))
    report.announce(Console(width=30), run, model, setup, Progress(step=6))
    first, second = capsys.readouterr().out.splitlines()  # a path is never broken
    assert first == (f"toy: {model.num_parameters():,} parameters, 24 steps of 64 tokens (2.4 passes over 640), "
                     f"cpu, 1 thread, in {run.path}")
    assert second == "going on after step 6"


@pytest.mark.parametrize(("load", "said"), [(0.5, None), (1.0, None), (3.0, "programs for each")])
def test_a_busy_machine_is_announced(load, said, monkeypatch):
    """By the programs that want to run, for each processor."""
    cores = os.cpu_count()
    monkeypatch.setattr(os, "getloadavg", lambda: (load * cores, 0.0, 0.0))
    sentence = report.busy_machine()
    assert sentence is None if said is None else f"the machine is busy: {load:.1f} {said}" in sentence


@pytest.mark.parametrize(("device", "said"), [("cuda", True), ("cpu", False)])
def test_what_deterministic_cannot_promise_on_a_gpu_is_said(run, capsys, device, said):
    cfg = override(run.config, {"train.deterministic": True})
    batches = SimpleNamespace(num_tokens=640, rows_per_epoch=40)
    setup = SimpleNamespace(schedule=Schedule(cfg), batches=batches, device=torch.device(device))
    report.announce(Console(width=30), run, Model(cfg.model), setup, Progress())
    assert ("repeats the bits on this model of GPU with this driver and torch only" in capsys.readouterr().out) == said


def test_a_path_reads_from_the_projects_folder_and_whole_where_it_lies_elsewhere(tmp_path):
    assert str(shown(runs.ROOT / "models" / "toy")) == str(Path("models", "toy"))
    assert shown(tmp_path) == tmp_path
