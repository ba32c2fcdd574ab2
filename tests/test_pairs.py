"""Pairs of a source and a target: in token files, in batches, built in, from tables, and graded."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import QUIET
from lives import interrupted_and_resumed
from small_runs import small_run_config

import runs
import tales
import tales.pairs
from config import TALES, Config, DataConfig, override, replace
from corpora.chunks import Chunk, first_documents, pair, recut, sample_documents, split_evenly
from corpora.corpus import load_corpus
from corpora.kinds import Corpus
from corpora.shards import JoinedTokenFile, prepare
from data import IGNORED, Batches, eval_batches
from experiments.comparing.lines import lines
from experiments.comparing.run_tables import run_table
from experiments.comparing.sources import read_run
from inference import continue_prompts, write_texts
from model import Model
from objective import MaskedDiffusion, NextToken
from objectives.rows import Row
from tales.words import BOYS, GIRLS
from tokenizer import ByteTokenizer, load_tokenizer
from train import train
from training import pairs, report
from training.pairs import validation_pairs, write_targets

BYTES = ByteTokenizer()
THREE = [("one", "I"), ("two and two", "IV"), ("éight", "VIII, or so")]


class Given(Corpus):
    """These pairs, the last one for validation."""

    name, is_pairs = "given", True

    def __init__(self, pairs: list[tuple[str, str]]):
        self.pairs, self.fingerprint = pairs, json.dumps(pairs)

    def chunks(self):
        for number, (source, target) in enumerate(self.pairs, 1):
            yield from (chunk._replace(part="val" if number == len(self.pairs) else "train")
                        for chunk in pair(source, target))


def encoded(tmp_path, pairs, **options):
    [(train_part, _)], val = prepare(Given(pairs), BYTES, tmp_path, **options)
    return train_part, val


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("question", "answer"), *rows])
    else:
        path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return path


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    return tmp_path / "models"


# ---- token files and rows ----


@pytest.mark.parametrize("workers", [1, 2])
def test_a_token_file_of_pairs_is_a_plain_restatement(tmp_path, workers):
    pairs = [*THREE, ("val", "part")]
    part, val = encoded(tmp_path, pairs, workers=workers)
    tokens, targets, starts, target_starts = [], [], [], []
    for source, target in THREE:
        starts.append(len(tokens))
        read = [BYTES.bos_id, *BYTES.encode(source), BYTES.eos_id]
        asked = [*BYTES.encode(target), BYTES.eos_id]
        tokens += read + asked
        targets += [-100] * len(read) + asked
        target_starts.append(len(tokens) - len(asked))
    assert part.tokens.tolist() == tokens and part.targets[:].tolist() == targets == part.targets[np.arange(
        len(tokens))].tolist()
    assert part.document_starts.tolist() == starts and part.target_starts.tolist() == target_starts
    assert part.num_bytes == sum(len(target.encode()) for _, target in THREE) and val.num_bytes == 4
    assert part.num_documents == 3 and part.bits is None
    assert part.num_tokens - part.num_source_tokens == sum(target != -100 for target in targets)
    joined = JoinedTokenFile([part, val])
    assert joined.targets[np.arange(joined.num_tokens)].tolist() == targets + val.targets[:].tolist()
    assert [joined.tokens[start] for start in joined.target_starts] == [ord("I") + 3, ord("I") + 3, ord("V") + 3,
                                                                         ord("p") + 3]


def test_pairs_are_counted_cut_and_drawn_as_documents():
    chunks = [chunk for number in range(40) for chunk in pair(f"{number} " * 2000, f"{number}?")]
    assert list(recut(chunks, lambda text: 5, 100)) == chunks
    assert list(first_documents(chunks, 3)) == chunks[:6]
    drawn = list(sample_documents(chunks, 0.5, seed=0))
    assert 10 < len(drawn) < 70 and [chunk.is_source for chunk in drawn] == [True, False] * (len(drawn) // 2)
    parts = [chunk.part for chunk in split_evenly(chunks, 0.25)]
    assert parts[::2] == parts[1::2] and parts.count("val") == 20
    assert Chunk("x").ends and not Chunk("x", is_last=False).ends


def test_a_row_never_holds_a_target_without_its_source_and_longer_pairs_are_left_out_and_counted(tmp_path):
    pairs = [("s" * n, "t" * n) for n in (2, 3, 9, 4, 2)]
    part, val = encoded(tmp_path, pairs, max_pair_len=11)  # bos, eos, eos and twice 4
    assert part.left_out == {"pairs with more than the 10 tokens of a row": 1} and part.num_documents == 3
    assert part.num_bytes == 2 + 3 + 4
    batch = Batches([(part, 1.0)], batch_size=3, seq_len=10, packing="pad", shuffle=False)[0]
    for x, y, n in zip(batch.x.tolist(), batch.y.tolist(), (2, 3, 4), strict=True):
        assert [token for token in y if token != IGNORED] == BYTES.encode("t" * n) + [BYTES.eos_id]
        assert y[: n + 1] == [IGNORED] * (n + 1) and x[: n + 2] == [BYTES.bos_id, *BYTES.encode("s" * n), BYTES.eos_id]
    scored = [token for batch in eval_batches(val, 2, 10, "pad") for token in batch.y[batch.y != IGNORED].tolist()]
    assert scored == [*BYTES.encode("tt"), BYTES.eos_id] and batch.num_targets == 3 + 4 + 5
    with pytest.raises(ValueError, match=r"leaves the train part empty.*4 pairs with more than the 3 tokens of a row"):
        encoded(tmp_path, [("s" * n, "t" * n) for n in (7, 8, 9, 4)], max_pair_len=4)


def test_masked_diffusion_masks_no_token_of_a_source(tmp_path):
    part, _ = encoded(tmp_path, [*THREE * 5, ("val", "part")])
    batch = Batches([(part, 1.0)], batch_size=15, seq_len=30, packing="pad")[0]
    cfg = override(Config(), {"model": {"dim": 16, "num_layers": 1, "attention.num_heads": 2, "max_seq_len": 31,
                                        "vocab_size": 260}, "train.objective": "masked_diffusion"})
    objective = MaskedDiffusion.from_config(Model(cfg.model, causal=False), cfg.train)
    seen = []
    objective.model.embed.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    objective(batch)
    row = Row.of(batch)
    masked = seen[0][:, : row.tokens.shape[1]] != row.tokens
    assert masked.any() and not masked[~row.is_target].any()
    sources = [text for text, _ in THREE]
    for ids, length in zip(row.tokens, row.source_len.tolist(), strict=True):
        assert BYTES.decode(ids[:length].tolist()) in sources


# ---- the built-in tasks ----


def built_in(name: str, count: int = 400) -> list[tuple[str, str]]:
    return [tuple(tales.pairs.TASKS[name](3, number)) for number in range(count)]


def test_every_built_in_task_has_a_word_and_trains_on_the_stories_of_the_same_seeds():
    assert tuple(tales.pairs.TASKS) == TALES[1:]
    for name in TALES[1:]:
        corpus = load_corpus(DataConfig(name=name, num_stories=30, seed=2, packing="pad"))
        chunks = list(corpus.chunks())
        assert [chunk.part for chunk in chunks] == ["train"] * 60 + ["val"] * 6
        assert (chunks[0].text, chunks[1].text) == tales.pairs.TASKS[name](2, 0)
        assert (chunks[60].text, chunks[61].text) == tales.pairs.TASKS[name](-1, 0)


def test_an_opening_and_its_rest_are_the_story():
    for number, (source, target) in enumerate(built_in("tales-opening")):
        assert source + target == tales.story(3, number).text
        assert source.endswith(".") and source.count(".") == 1 and target.startswith(" ")


def test_words_in_reverse_order_are_the_words_of_a_sentence_of_the_story():
    for number, (source, target) in enumerate(built_in("tales-reversed")):
        assert target.split()[::-1] == source.split() and source in tales.story(3, number).text
        assert target != source and source[0].isupper() and source.endswith(".")


def answer(story: str, asked: str) -> str | None:
    """The answer, found in the words of the text."""
    people = set(re.split(r",\s*", GIRLS + ", " + BOYS))
    called = re.search(r"(\S+) (?:named|called) (\w+)", story.split(".")[0])
    if asked == "Who is the story about?":
        return called[2]
    if asked == "How many names are in the story?":
        return [None, "one", "two", "three", "four"][len(people & set(re.findall(r"\w+", story)))]
    if found := re.fullmatch(r"What animal is (\w+)\?", asked):
        animals = sorted({form for item in tales.GRAMMAR.menus["animal"].items for form in [item.split("/")[0]]})
        apposition = rf"{found[1]}(?: the|,)(?: (?:an? )?[\w-]+,?)*? ({'|'.join(animals)})\b"
        return called[1] if found[1] == called[2] else re.search(apposition, story)[1]
    if found := re.fullmatch(r"How many (.+)\?", asked):
        numbers = "three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty"
        [number] = re.findall(rf"\b({numbers})\s(?:[\w-]+\s)?{found[1]}\b", story)
        return number
    if found := re.fullmatch(r"What color is the (.+)\?", asked):
        colors = set(re.findall(rf"([\w-]+)\s{found[1]}\b", story))
        return colors.pop() if len(colors) == 1 else None
    found = re.search(r"(?:in|to) (an? [\w-]+ \w+)(?:, there lived|$)", story.split(".")[0])
    return f"in {found[1]}" if asked == f"Where does {called[2]} live?" else None


def test_answers_are_found_again_in_the_text_by_other_rules():
    kinds = set()
    for source, target in built_in("tales-questions", 800):
        story, asked = source.rsplit("\n", 1)
        assert answer(story, asked) == target, source
        kinds.add(asked.split()[0] + asked.split()[1])
        tales.parse(story)
    assert kinds == {"Whois", "Whatanimal", "Whatcolor", "Howmany", "Wheredoes"}


def test_the_built_tokenizers_encode_all_built_in_pairs():
    tokenizer = load_tokenizer("tales_128")
    for name in TALES[1:]:
        for text in sum(built_in(name, 50), ()):
            assert tokenizer.decode(tokenizer.encode(text)) == text


# ---- tables ----


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_a_table_of_two_columns_trains_and_its_broken_rows_are_counted(tmp_path, name, capsys):
    rows = [(f"what is {n}", f"{n} it is") for n in range(20)]
    path = table(tmp_path / name, [*rows, ("", "no source"), ("no target", " ")])
    cfg = pair_config(tmp_path, path, {"train.steps": 1, "train.graded_stories": 2})
    run = train(cfg, console=QUIET)
    assert run.data["rows_left_out"] == {"blank (question)": 1, "blank (answer)": 1}
    assert run.data["train_bytes"] + run.data["val_bytes"] == sum(len(target) for _, target in rows)
    num_bytes = run.data["val_bytes"]
    assert run.data["val_tokens_per_byte"] == (num_bytes + run.data["val_documents"]) / num_bytes
    assert "2 rows are left out" in capsys.readouterr().err
    lines = json.loads((run.path / "pairs.json").read_text())
    assert len(lines) == 2 and {(line["source"], line["target"]) for line in lines} <= set(rows)


def pair_config(folder: Path, path: Path | str, changes: dict) -> Config:
    table_flags = {"data.source_column": "question", "data.column": "answer"} if isinstance(path, Path) else {}
    return small_run_config(folder, {
        "data.name": str(path), "data.packing": "pad", "model.max_seq_len": 48, "tokenizer.kind": "byte", **table_flags,
        **changes})


@pytest.mark.parametrize(("flags", "said"), [
    ({"packing": "stream"}, "packing=stream would join the pairs"),
    ({"source_column": "nothing"}, "data.source_column=nothing is not a column of"),
    ({"column": None}, "data.column=text is not a column of"),
    ({"name": "tales-opening"}, "source_column=question would change nothing"),
    ({"name": "tales-opening", "source_column": None, "packing": "documents"}, "packing=documents would join"),
    ({"name": ("tales", "tales-opening"), "source_column": None}, "gives pairs of a source and a target, and tales"),
    ({"name": "text.txt"}, "data.source_column='question' would change nothing for"),
    ({"val_name": "text.txt"}, "pairs.csv gives pairs of a source and a target, and .*text.txt texts"),
])
def test_what_pairs_cannot_be_is_refused(tmp_path, flags, said):
    (tmp_path / "text.txt").write_text("a text, and more. " * 9)
    flags = {"source_column": "question", "column": "answer", "packing": "pad", "name": "pairs.csv"} | flags
    if "tales-opening" in flags["name"]:
        flags |= {"num_stories": 9, "column": None}
    for flag in {"name", "val_name"} & {*flags}:
        flags[flag] = str(tmp_path / flags[flag]) if "." in flags[flag] else flags[flag]
    table(tmp_path / "pairs.csv", THREE)
    if flags["name"].__class__ is str and flags["name"].endswith(".txt"):
        flags["column"] = None
    with pytest.raises(ValueError, match=said):
        load_corpus(DataConfig(**flags, cache_dir=str(tmp_path)))


# ---- runs ----


def test_a_model_that_knows_pairs_by_heart_is_exact_and_an_untrained_one_is_not(tmp_path):
    torch.manual_seed(0)
    part, _ = encoded(tmp_path, [*THREE, ("val", "part")])
    model = Model(small_run_config(tmp_path, {"model.vocab_size": 259, "model.max_seq_len": 40, "model.dim": 32,
                                              "model.attention.dropout": 0.0, "model.residual_dropout": 0.0}).model)
    objective, pairs = NextToken(model), validation_pairs(part, 100)
    greedy = override(Config(), {"sample.temperature": 0.0, "sample.max_new_tokens": 30}).sample
    assert [line["exact"] for line in write_targets(objective, BYTES, pairs, greedy)] == [False] * 3
    batch = Batches([(part, 1.0)], batch_size=3, seq_len=30, packing="pad")[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(200):
        optimizer.zero_grad()
        objective(batch).total.backward()
        optimizer.step()
    lines = write_targets(objective, BYTES, pairs, greedy)
    assert [(line["source"], line["target"], line["text"], line["exact"]) for line in lines] == [
        (source, target, target, True) for source, target in THREE]
    sample = replace(greedy, prompts=tuple(source for source, _ in THREE), num_samples=1)
    assert continue_prompts(objective, BYTES, sample, are_sources=True) == [target for _, target in THREE]
    write_texts(objective, BYTES, replace(sample, prompts=("one",)), out := io.StringIO(), are_sources=True)
    assert out.getvalue() == "one\nI\n"
    cut = override(Config(), {"sample.temperature": 0.0, "sample.max_new_tokens": 2}).sample
    assert [line["exact"] for line in write_targets(objective, BYTES, pairs, cut)] == [True, False, False]


@pytest.mark.parametrize("objective", ["next_token", "masked_diffusion"])
def test_a_run_on_pairs_resumes_bit_for_bit(tmp_path, objective, at_step, models):
    cfg = pair_config(tmp_path, "tales-reversed", {
        "data.num_stories": 60, "data.val_ratio": 0.2, "model.max_seq_len": 150, "train.steps": 6,
        "train.checkpoint_every": 2, "train.eval_every": 2, "train.sample_every": 3, "train.log_every": 2,
        "train.graded_stories": 2, "train.objective": objective, "sample.max_new_tokens": 3})
    resumed = interrupted_and_resumed(lambda: train(cfg, console=QUIET), at_step, models, step=5)
    kept = models / "expected"
    assert (resumed.path / "pairs.json").read_text() == (kept / "pairs.json").read_text()
    [source] = {sample["prompt"] for sample in resumed.samples()}
    assert source in {tales.pairs.TASKS["tales-reversed"](-1, n).source for n in range(12)}
    [row] = run_table(lines([read_run(resumed.path)]), {}, None)["exact"]
    assert row == np.mean([line["exact"] for line in json.loads((kept / "pairs.json").read_text())])


def test_openings_are_continued_to_stories_that_are_graded(tmp_path, capsys):
    run = train(pair_config(tmp_path, "tales-opening", {
        "data.num_stories": 40, "model.max_seq_len": 512, "tokenizer.kind": "bpe", "train.steps": 1,
        "train.graded_stories": 3}))
    grades, pairs = (json.loads((run.path / name).read_text()) for name in ("grades.json", "pairs.json"))
    assert [grade["text"] for grade in grades] == [line["source"] + line["text"] for line in pairs]
    said = capsys.readouterr().out
    assert "0 of 3 targets are exactly right" in said and "0 of 3 stories are grammatical" in said


@pytest.mark.parametrize("grade", ["stories", "targets"])
def test_what_is_graded_is_written_as_the_run_says(tmp_path, monkeypatch, grade):
    flags = {"sample.denoise.order": "first_hitting", "sample.vectors.steps": 7}
    run = SimpleNamespace(config=override(Config(), flags), path=tmp_path)
    given = []
    monkeypatch.setattr(report, "write_samples", lambda model, tokenizer, prompts, cfg: given.append(cfg) or [])
    monkeypatch.setattr(report, "grade_texts", lambda run, texts: "")
    monkeypatch.setattr(pairs, "validation_pairs", lambda part, count: [([1, 2], [3])])
    monkeypatch.setattr(pairs, "write_targets", lambda model, tokenizer, pairs, cfg: given.append(cfg) or [])
    if grade == "stories":
        report.grade_stories(run, None, None, 1)
    else:
        pairs.grade_pairs(run, None, None, None)
    assert (given[0].denoise.order, given[0].vectors.steps) == ("first_hitting", 7)


@pytest.mark.parametrize("objective", ["prefix", "seq2seq", "masked"])
def test_losses_of_whole_targets_are_marked_on_texts_alone(objective):
    text, pairs = (override(Config(), {"train.objective": objective} | data) for data in (
        {}, {"data.name": "tales-reversed", "data.packing": "pad"}))
    assert text.facts.sign == "≠ " and not text.facts.trains_as_evaluated
    assert (pairs.facts.sign == "") == pairs.facts.trains_as_evaluated == (objective != "masked")
