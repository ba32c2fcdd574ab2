"""One text for all runs: where it is from, how its tokens are counted, what is kept of it."""

import json
import math

import numpy as np
import pytest
from helpers import small_config

from experiments.comparing import measures
from experiments.comparing.lines import Line
from experiments.comparing.measures import CACHE, HeldOut, held_out, measure, measure_all, num_rows
from experiments.comparing.sources import CurveSource
from inference import score
from runs import Run
from tokenizer import BPETokenizer, ByteTokenizer, load_tokenizer

STORY = "Once, in a golden house of straw and clay, there lived a fussy lion called Eric.\n"


@pytest.fixture
def run(reference):
    """The reference, with nothing measured yet."""
    (reference.path / CACHE).unlink(missing_ok=True)
    yield Run(reference.path)
    (reference.path / CACHE).unlink(missing_ok=True)


def line(run: Run) -> Line:
    source = CurveSource(run.name, run.log(), run, run.path)
    return Line(run.name, (source,), source.table, None, None)


# ---- the memory ----


@pytest.mark.parametrize(("flags", "num_tokens", "rows"), [
    ({}, 100, 7),  # no more than the text fills
    ({"vocab_size": 2**16}, 10**6, 4), ({"dim": 2**13}, 10**6, 4), ({"max_seq_len": 2**9, "dim": 24}, 10**6, 2),
])
def test_no_batch_is_wider_than_what_memory_is_meant_for_it(flags, num_tokens, rows):
    cfg = small_config(**flags)
    assert num_rows(cfg, num_tokens, cfg.max_seq_len) == rows


# ---- the text ----


def test_the_text_is_what_was_held_out_for_the_first_run(run, folder):
    whole = (folder / "text.txt").read_text()
    text, problems = held_out([line(run)], 10**6)
    assert problems == [] and text.documents == (whole[len(whole) - round(0.1 * len(whole)):],)
    cut, _ = held_out([line(run)], 50)
    assert cut.documents == (text.documents[0][:50],) and cut.num_bytes == 50
    assert str(cut).startswith("The same text for all, in the columns that say so: 50 bytes held out for toy")
    assert held_out([line(run)], 0) == (None, [])


def test_documents_are_taken_whole_as_far_as_they_fit():
    assert measures._up_to(["aaaa", "bb", "cccccc", "d"], 8) == ("aaaa", "bb")
    assert measures._up_to(["é" * 4, "b"], 5) == ("éé",)


def test_a_text_that_has_changed_is_told_and_not_measured_on(run, folder, monkeypatch):
    monkeypatch.setitem(run.data, "fingerprint", "another")
    text, (problem,) = held_out([line(run)], 100)
    assert text is None and "has changed since toy was trained" in problem


def test_a_file_of_the_users_takes_its_place(run, tmp_path):
    (tmp_path / "own.txt").write_text("the old fox saw red hen")
    text, problems = held_out([line(run)], 10, tmp_path / "own.txt")
    assert (text.documents, text.origin, problems) == (("the old fo",), "of own.txt", [])


# ---- blocks ----


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), load_tokenizer("tales_512")], ids=["byte", "bpe"])
def test_every_byte_counts_in_its_own_block_whatever_the_tokenizer(tokenizer: ByteTokenizer | BPETokenizer):
    text = HeldOut((STORY, STORY * 90, "short"), "made")
    assert [len(sizes) for sizes in text.blocks] == [1, len(STORY) * 90 // measures.BLOCK_BYTES, 1]
    encoded = [tokenizer.encode(document, bos=True, eos=True) for document in text.documents]
    blocks = text.blocks_of(tokenizer, encoded)
    sizes = np.bincount(blocks, tokenizer.byte_lengths[np.concatenate(encoded)])
    longest = max(tokenizer.byte_lengths)
    assert sizes.sum() == text.num_bytes and np.abs(sizes - text.block_bytes).max() <= longest
    assert (sizes[0], sizes[-1]) == (len(STORY), len("short"))
    ends = np.cumsum([len(ids) for ids in encoded])
    assert [blocks[end - 1] for end in ends] == [0, len(sizes) - 2, len(sizes) - 1]  # the end-of-text tokens


# ---- figures ----


@pytest.mark.parametrize("packing", ["stream", "pad", "documents"])
@pytest.mark.slow
def test_figures_are_those_of_scoring_the_text(run, packing):
    documents = ("the old fox saw red hen and ran home", "once upon a time", "the hen" * 9)
    model, tokenizer, text = run.load_model(), run.tokenizer(), HeldOut(documents, "made")
    found = measures.predict(model, tokenizer, text, packing=packing)
    expected = score(model, tokenizer, "|".join(documents), separator="|", packing=packing)
    assert sum(found["block_nats"]) == pytest.approx(expected.loss * expected.num_tokens, rel=1e-5)
    assert {int(k): share for k, share in found["accuracy"].items()} == expected.accuracy
    assert found["num_tokens"] == expected.num_tokens and len(found["block_nats"]) == 3


@pytest.mark.slow
def test_the_nats_of_a_document_are_its_own(run):
    documents = ("the old fox saw red hen and ran home", "once upon a time")
    model, tokenizer = run.load_model(), run.tokenizer()
    both = measures.predict(model, tokenizer, HeldOut(documents, "made"), packing="pad")["block_nats"]
    alone = [measures.predict(model, tokenizer, HeldOut((document,), "made"), packing="pad")["block_nats"]
             for document in documents]
    assert both == pytest.approx([nats for (nats,) in alone], rel=1e-5)


@pytest.mark.slow
def test_the_whole_text_gives_what_the_log_says_of_it(run):
    text, _ = held_out([line(run)], 10**6)
    log = run.log().dropna(subset="bits_per_byte").set_index("step")
    found = measure(run, text)
    assert found.bits_per_byte(text) == pytest.approx(log.bits_per_byte[found.step], rel=1e-5)
    assert found.accuracy[1] == pytest.approx(log.accuracy[found.step])


@pytest.mark.slow
def test_what_was_measured_is_kept_for_this_checkpoint_and_text(run, monkeypatch):
    text = HeldOut(("the old fox",), "made")
    first = measure(run, text)
    with monkeypatch.context() as patch:
        patch.setattr(measures, "predict", lambda *_, **__: pytest.fail("measured twice"))
        assert measure(run, text) == first
        for again in (lambda: measure(run, HeldOut(("the old hen",), "made")),
                      lambda: measure(run, text, checkpoint=str(run.checkpoints()[0].step))):
            with pytest.raises(pytest.fail.Exception):
                again()
    (run.path / CACHE).write_text("{")  # damaged: measured anew, and mended
    assert measure(run, text) == first
    assert json.loads((run.path / CACHE).read_text())


@pytest.mark.slow
def test_a_run_that_cannot_be_measured_is_told_and_the_others_are(run):
    text = HeldOut(("the old fox: ÄÖÜ",), "made")
    measured, (problem,) = measure_all([line(run)], text)
    assert measured == {} and problem.startswith("toy is not measured: ")
    measured, problems = measure_all([line(run)], HeldOut(("the old fox",), "made"))
    assert problems == [] and [len(one.block_nats) for one in measured.values()] == [1]
    (one,) = measured.values()
    assert one.bits_per_byte(HeldOut(("the old fox",), "made")) == pytest.approx(
        sum(one.block_nats) / math.log(2) / 11)
