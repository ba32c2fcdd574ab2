"""`python model.py RUN`: the model of a saved run, with its trained weights, on real tokens."""

import shutil
import sys

import pytest
import torch

import showing.command
from corpora.corpus import load_corpus
from runs import Run
from tokenizer import ByteTokenizer


@pytest.fixture
def show(monkeypatch, capfd, reference):
    """`python model.py ...` in this process, with the reference among the runs: what it prints."""
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["model.py", *words])
        monkeypatch.setattr("run_store.listing.MODELS", reference.path.parent)
        showing.command.main()
        output, errors = capfd.readouterr()
        assert errors == ""
        return output

    return run


def expected_range(run: Run, text: str, *, checkpoint: str = "best") -> str:
    """Lowest and highest logit of a text, as a trace prints them."""
    ids = run.tokenizer().encode(text, bos=True)
    with torch.no_grad():
        logits = run.load_model(checkpoint)(torch.tensor([ids]))
    return f"{logits.min().item():.3g} … {logits.max().item():.3g}"


def logits_line(output: str) -> str:
    return next(line for line in output.splitlines() if "→ logits" in line)


def test_a_run_is_shown_with_its_trained_weights_on_the_beginning_of_its_held_out_text(show, reference):
    output = show("toy")
    held_out = next(load_corpus(reference.config.data).val())[:15]  # max_seq_len is 16, and a token begins the text
    assert output.splitlines()[0] == f"the run toy, step 24, on 16 tokens of its held-out text: {held_out.strip()!r}"
    assert expected_range(reference, held_out) in logits_line(output)
    assert "blocks.1  Block" in output and "more, same shapes" not in output  # each layer has its own statistics


def test_it_reads_a_text_and_takes_a_checkpoint_as_asked(show, reference):
    output = show(str(reference.path), "--text", "the fox", "--checkpoint", "18")
    assert output.splitlines()[0] == "the run toy, step 18, on 8 tokens of your text: 'the fox'"
    assert expected_range(reference, "the fox", checkpoint="18") in logits_line(output)


def test_a_flag_that_fits_the_weights_changes_how_they_are_run_and_is_named(show):
    plain, narrow = (show("toy", "--text", "the fox ran", *flags) for flags in ((), ("--model.attention.window", "1")))
    assert narrow.startswith("the run toy, model.attention.window=1 (it has None), step")
    assert logits_line(plain) != logits_line(narrow)


def test_a_presets_name_means_the_preset_and_the_path_of_a_run_called_so_the_run(show, reference, monkeypatch):
    run = shutil.copytree(reference.path, reference.path.with_name("char"), dirs_exist_ok=True)
    monkeypatch.chdir(run.parents[1])
    first, *_ = show("char").splitlines()
    assert first == "the preset char, untrained, on random tokens; the run of this name: python model.py models/char"
    assert show("models/char").startswith("the run char, step 24, on 16 tokens of its held-out text")


def test_a_tokenizer_of_another_model_is_refused_in_a_sentence(show, reference, capfd):
    run = shutil.copytree(reference.path, reference.path.with_name("swapped"))
    ByteTokenizer().save(run / "tokenizer")
    with pytest.raises(SystemExit) as stop:
        show("swapped", "--text", "fox")
    errors = capfd.readouterr().err
    assert stop.value.code == 2 and "tokenizer has ids outside the model's vocab_size=24" in errors
    assert errors.count("\n") == 1
