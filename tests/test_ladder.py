"""Each rung of the ladder changes one thing, all see the same text, and what is said of them comes from their logs."""

import json
import math
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import QUIET
from helpers import assert_close, small_tokens
from programs import Program
from small_runs import write_text_file

from config import DataConfig, override, replace
from experiments import ladder
from experiments.common.intervals import welch
from experiments.processes.training_runs import train_all
from experiments.rungs import staircase
from experiments.rungs.definitions import RUNGS, WORDS
from experiments.rungs.ladder_report import draw_staircase, page, rung_table, trace_diff, trace_rung, write_report
from experiments.rungs.staircase import RungResult, rung_results, table
from model import Model
from presets import LADDER, LADDER_TOKENS, load_preset
from runs import Run
from train import train

PROGRAM = Path(ladder.__file__)
THE_ONE_THING = [
    {}, {"train.batch_size"}, {"model.position"}, {"train.optimizer", "train.lr"}, {"model.mixer",
                                                                                    "model.attention.num_heads"},
    {"model.attention.num_heads"}, {"model.mlp", "model.activation"}, {"model.num_layers"}, {"model.residual"},
    {"model.norm"},
    {"model.residual_dropout"},
    {"model.dim", "model.attention.num_heads", "model.max_seq_len", "train.batch_size"},
]


@pytest.fixture
def text(tmp_path):
    """A text of 20 kB, and where it is encoded."""
    path = write_text_file(tmp_path / "words.txt", num_words=4000)
    return DataConfig(name=(str(path),), cache_dir=str(tmp_path / "cache"))


def run_of(number: int, text: DataConfig, *, seed: int = 0, tokens: int = 4096) -> Run:
    return train(RUNGS[number - 1].config(tokens=tokens, seed=seed, data=text), console=QUIET)


# ---- the presets ----


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.preset)
def test_a_rung_differs_from_the_one_below_in_one_thing(rung):
    assert set(rung.changes()) == set(THE_ONE_THING[rung.number - 1])


def test_twelve_rungs_have_words_and_numbers_in_order():
    assert [rung.number for rung in RUNGS] == list(range(1, 13)) and list(WORDS) == list(LADDER)
    assert [int(rung.preset.split("-")[1]) for rung in RUNGS] == list(range(1, 13))


@pytest.mark.parametrize("tokens", [LADDER_TOKENS, 65_536])
def test_all_rungs_learn_from_equally_many_tokens(tokens):
    configs = [rung.config(tokens=tokens) for rung in RUNGS]
    configs += [load_preset(rung.preset) for rung in RUNGS if tokens == LADDER_TOKENS]
    assert {cfg.train.steps * cfg.train.batch_size * cfg.model.max_seq_len for cfg in configs} == {tokens}


def test_the_lowest_rung_is_a_table_of_what_follows_each_token():
    model, tokens = Model(replace(load_preset("ladder-01-bigram").model, vocab_size=37)), small_tokens()
    with torch.no_grad():
        rows = model.head(model.embed.tokens.weight)
        assert_close(model(tokens), rows[tokens], "same")


@pytest.mark.slow
def test_a_bigram_table_comes_to_the_entropy_of_pairs(text, models):
    run = run_of(4, text, tokens=512_000)
    characters = Path(text.name[0]).read_text()
    pairs, firsts = Counter(zip(characters, characters[1:], strict=False)), Counter(characters[:-1])
    entropy = -sum(count * math.log2(count / firsts[pair[0]]) for pair, count in pairs.items()) / (len(characters) - 1)
    assert entropy - 0.05 < staircase.last(run, "bits_per_byte") < entropy + 0.1


@pytest.mark.parametrize(("number", "found"), [
    (2, "the same shapes"), (3, "embed.position"), (4, "the same shapes"), (5, "blocks.0.mixer.branch.attend"),
    (6, "h=1, t=8, p=64] | float32 [b=2, h=4, t=8, p=16]"), (7, "blocks.0.mlp.branch.up"), (8, "blocks.1.mixer"),
    (9, "NoSkip | PreNorm"), (10, "NoNorm | LayerNorm"), (11, "blocks.3.mlp.dropout: only in the second"),
    (12, "d=64] | float32 [b=2, t=8, d=128]"),
])
def test_the_trace_shows_what_a_rung_adds(number, found):
    assert found in trace_diff(RUNGS[number - 1])


def test_a_trace_is_of_the_rung_in_training():
    assert any(call.kind == "Dropout" for root in trace_rung(load_preset("ladder-11-dropout").model).calls
               for call in root.walk())


# ---- training ----


def test_what_is_finished_is_kept_and_another_run_of_the_name_is_refused(text, models, tmp_path):
    run = run_of(5, text)
    cfg = RUNGS[4].config(tokens=4096, data=text)
    train_all([cfg], jobs=1, folder=tmp_path / "logs", on_end=lambda run: pytest.fail(f"{run.name} was trained again"))
    for changes, named in (({"train.steps": 9}, "train.steps=8, not 9"), ({"model.norm": "rms"}, "norm=none, not rms")):
        with pytest.raises(ValueError, match=rf"{run.name} is there, .* trained with .*{named}: choose another --name"):
            train_all([override(cfg, changes)], jobs=1, folder=tmp_path / "logs", on_end=pytest.fail)


def command(tmp_path: Path, *words: str) -> Program:
    def program() -> None:
        sys.argv = ["ladder.py", *words, "--data.name", str(tmp_path / "words.txt"),
                    "--data.cache-dir", str(tmp_path / "cache"), "--name", "toy"]
        ladder.main()

    return Program(program, {"SHAPESHIFTER_MODELS": str(tmp_path / "models"), "OMP_NUM_THREADS": "1",
                             "SHAPESHIFTER_RESULTS": str(tmp_path / "results")})


@pytest.mark.slow
def test_a_ladder_that_was_stopped_goes_on_where_it_was(text, tmp_path):
    words = ["--tokens", "256000", "--only", "1", "2", "--jobs", "1"]
    process, log = command(tmp_path, *words), tmp_path / "models" / "toy-01-bigram" / "log.csv"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate()
    assert process.returncode == 143 and errors == "stopped by SIGTERM; the same command goes on\n"
    saved = (tmp_path / "models" / "toy-02-batches" / "loss.png").stat().st_mtime_ns
    steps = [int(path.name[5:]) for path in log.parent.glob("checkpoints/step_*")]
    assert 0 < max(steps) < 4000 and "toy-02-batches: " in said

    said, errors = (process := command(tmp_path, *words)).communicate()
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "models" / "toy-02-batches" / "loss.png").stat().st_mtime_ns == saved
    assert "going on after step" in (tmp_path / "results" / "toy" / "logs" / "toy-01-bigram.txt").read_text()
    assert re.search(r"^ 2 Mini-batches.*By one seed [+-]\d\.\d{3} bits", said, re.MULTILINE)
    assert "One seed does not tell a small difference from chance" in said
    assert {path.name for path in (tmp_path / "results" / "toy").iterdir()} == {
        "staircase.png", "report.md", "table.csv", "logs"}


@pytest.mark.slow
def test_a_rung_that_fails_ends_the_command_with_what_it_said(tmp_path):
    (tmp_path / "words.txt").write_text("too short\n")
    said, errors = (process := command(tmp_path, "--only", "2", "--tokens", "2048")).communicate()
    assert process.returncode == 2
    assert errors.startswith("error: toy-02-batches has ended with status 2: ") and errors.count("\n") == 1


# ---- the command line ----


@pytest.mark.parametrize(("words", "sentence"), [
    (["--only", "13"], "only=13 is not a rung: use numbers from 1 to 12"),
    (["--tokens", "0"], "error: tokens=0 must be above 0"), (["--seeds", "0"], "seeds=0 must be above 0"),
    (["--name", "a/b"], "name='a/b' is not a folder name"),
    (["--data.val-ratio", "2"], "val_ratio=2.0 must lie between"),
    (["--tokens", "many"], "tokens='many' is wrong: use a whole number"),
])
def test_a_mistake_is_one_sentence_and_status_2(words, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ladder.py", *words])
    with pytest.raises(SystemExit) as stop:
        ladder.main()
    said, errors = capsys.readouterr()
    assert (stop.value.code, said) == (2, "") and sentence in errors and errors.count("\n") == 1


def test_the_command_trains_the_longest_rungs_first_and_each_seed_under_its_own_name():
    names = [cfg.train.name for cfg in ladder.parse(["--only", "2", "5", "--seeds", "2"]).configs()]
    assert names == ["ladder-05-attention", "ladder-02-batches", "ladder-05-attention-seed-1",
                     "ladder-02-batches-seed-1"]


def test_no_more_is_held_out_of_a_long_text_than_is_measured_in_seconds(tmp_path):
    (tmp_path / "my long text.txt").write_text("Once. " * 1_000_000)
    command = ladder.parse(["--data.name", str(tmp_path / "my long text.txt")])
    (data,) = {cfg.data for cfg in command.configs()}
    assert data.val_ratio == 150_000 / 6_000_000 < DataConfig().val_ratio
    assert command.ladder == "ladder-my-long-text" and data.num_stories == DataConfig().num_stories


# ---- what is said of them ----


def step_of(values: list[float], below: list[float]) -> RungResult:
    return RungResult(RUNGS[5], runs=(), values=tuple(values), parameters=9, seconds=3.0, flops=1.0, below=RUNGS[4],
                change=welch(values, below), slower=1.5)


@pytest.mark.parametrize(("values", "below", "helps", "words"), [
    ([2.0, 2.01, 1.99], [3.0, 3.01, 2.99], True, "It helps: -1.000 bits per byte against rung 5 (95 % interval -1.0"),
    ([3.0, 3.01, 2.99], [2.0, 2.01, 1.99], False, "It hurts: +1.000 bits per byte against rung 5 (95 % interval +0.9"),
    ([2.0, 2.2, 1.8], [2.05, 1.9, 2.2], None, "It makes no difference that could be told from chance: -0.050 bits"),
    ([2.0], [3.0], None, "By one seed -1.000 bits per byte against rung 5, at 1.5 x"),
])
def test_the_verdict_follows_from_the_numbers(values, below, helps, words):
    step = step_of(values, below)
    assert step.helps is helps and step.verdict().startswith(words)


@pytest.fixture
def steps(text, models):
    """Three rungs, two seeds of each, trained for a moment."""
    for number in (1, 2, 5):
        for seed in (0, 1):
            run_of(number, text, seed=seed)
    return rung_results()


def logged(run: Run, column: str) -> list[float]:
    """A column of a raw log, without what is empty."""
    names, *lines = (line.split(",") for line in (run.path / "log.csv").read_text().splitlines())
    return [float(line[names.index(column)]) for line in lines if line[names.index(column)]]


@pytest.mark.slow
def test_every_number_of_the_table_comes_from_logs_and_weights(steps):
    found = table(steps)
    assert list(found.index) == [1, 2, 5] and list(found.seeds) == [2, 2, 2]
    ends = {}
    for number, row in found.iterrows():
        runs = [Run(RUNGS[number - 1].run_name("ladder", seed)) for seed in (0, 1)]
        ends[number] = [logged(run, "bits_per_byte")[-1] for run in runs]
        assert row.bits_per_byte == pytest.approx(sum(ends[number]) / 2)
        # Student's t with one degree of freedom: 12.7062 standard errors, and that of two values is half their distance
        assert row.interval == pytest.approx(12.7062 * abs(ends[number][0] - ends[number][1]) / 2, rel=1e-4)
        assert row.seconds == pytest.approx(sum(logged(run, "seconds")[-1] for run in runs) / 2)
        assert row.flops == logged(runs[0], "flops")[-1] and {logged(run, "tokens")[-1] for run in runs} == {4096}
        assert row.parameters == sum(p.numel() for p in runs[0].load_model().parameters())
    for number, below in ((2, 1), (5, 2)):
        assert found.change[number] == pytest.approx(sum(ends[number]) / 2 - sum(ends[below]) / 2)
    alone = [welch(ends[2], ends[1]).p, welch(ends[5], ends[2]).p]
    assert sorted(found.p.dropna()) == pytest.approx(sorted((min(1, 2 * min(alone)), max(2 * min(alone), max(alone)))))


@pytest.mark.slow
def test_the_report_has_each_rung_with_words_flags_trace_and_sample(steps, tmp_path):
    files = write_report(steps, tmp_path / "results")
    assert [file.name for file in files] == ["staircase.png", "report.md", "table.csv"]
    assert files[0].read_bytes().startswith(b"\x89PNG") and files[0].stat().st_size < 100_000
    report = files[1].read_text()
    for step in steps:
        assert f"## {step.rung.number} · {step.rung.title}\n\n{step.rung.words}" in report
        assert f"{step.parameters:,} parameters, {step.mean.mean:.4f} bits per byte. {step.verdict()}" in report
        assert step.runs[0].samples()[-1]["text"][:50] in report
    assert trace_diff(RUNGS[4]) in report and "`train.batch_size` 1 → 8" in report and "toy" not in report
    assert page(steps) == report and rung_table(steps).count("\n") == 4


@pytest.mark.slow
def test_the_staircase_has_a_tread_for_each_rung_and_a_dot_for_each_seed(steps):
    (axes,) = draw_staircase(steps).axes
    treads = [path.vertices[0, 1] for lines in axes.collections if type(lines).__name__ == "LineCollection"
              for path in lines.get_paths() if path.vertices[0, 1] == path.vertices[1, 1]]
    assert treads == pytest.approx([step.mean.mean for step in steps])
    dots = [tuple(line.get_ydata()) for line in axes.lines]
    assert dots == [step.values for step in steps]
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == ["1", "2", "5"]


def test_rungs_of_different_texts_or_lengths_are_not_compared(text, models, tmp_path):
    run_of(2, text)
    run_of(3, text, tokens=2048)
    with pytest.raises(ValueError, match="ladder-03-positions has another number of tokens than ladder-02-batches"):
        rung_results()
    other = write_text_file(tmp_path / "other.txt", num_words=4000, seed=1)
    run_of(1, replace(text, name=(str(other),)))
    with pytest.raises(ValueError, match="has another text than ladder-01-bigram"):
        rung_results()


def test_without_a_finished_rung_it_says_how_to_train_one(models):
    with pytest.raises(ValueError, match=r"name=ladder has no finished rung yet: python experiments/ladder.py"):
        rung_results()


def test_a_run_under_way_does_not_count(text, models):
    run = run_of(2, text)
    (run.path / "loss.png").unlink()
    run_of(3, text)
    assert [step.rung.number for step in rung_results()] == [3]


def test_the_notebook_has_the_words_of_the_rungs():
    notebook = json.loads((PROGRAM.parent.parent / "notebooks" / "ladder.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    for rung in RUNGS:
        (cell,) = (cell for cell in cells if cell.startswith(f"## {rung.number} · "))
        assert cell == f"## {rung.number} · {rung.title}\n\n{rung.words}"
