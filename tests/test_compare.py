"""The comparison of five runs: every number of it recomputed from logs, checkpoints and the corpus."""

import csv
import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from small_runs import small_run_config

import runs
import tales
import train
from experiments import compare
from runs import Run
from tokenizer import load_tokenizer

TALES = {"data.name": "tales", "data.num_stories": 40, "data.packing": "pad", "tokenizer.kind": "byte",
         "train.steps": 12, "train.eval_tokens": 300, "train.graded_stories": 3, "train.log_every": 3}
RUNS = {"tiny-seed-0": {}, "tiny-seed-1": {"train.seed": 1}, "wide": {"model.dim": 24},
        "pieces": {"tokenizer.kind": "bpe", "tokenizer.path": "tales_128"}}
LIMIT = 2000  # bytes of the 2,700 that are held out


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Two seeds of one configuration, a wider model, another tokenizer, and one that is broken."""
    folder = tmp_path_factory.mktemp("five")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", folder / "models")
        for name, changes in RUNS.items():
            train.train(small_run_config(folder, TALES | {"train.name": name} | changes), console=Console(quiet=True))
            (folder / "models" / name / "memory.json").write_text(json.dumps({"peak_bytes": 10**8 + len(name)}))
        (folder / "models" / "broken").mkdir()
        (folder / "models" / "broken" / "config.json").write_text('{"model": {"dim": ')
        yield folder


@pytest.fixture
def command(five, tmp_path, monkeypatch, call):
    """`python experiments/compare.py ...` in this process."""
    monkeypatch.setattr(runs, "MODELS", five / "models")
    return lambda *words: call(compare.main, *words, "--png", tmp_path / "curves.png")


# ---- every number again, by other means ----


def held_out() -> list[str]:
    """The validation stories: whole ones, as far as LIMIT goes."""
    texts = [tales.story(-1, number).text for number in range(4)]
    return [text for place, text in enumerate(texts) if sum(map(len, texts[: place + 1])) <= LIMIT]


def predicted(run: Run, texts: list[str]) -> tuple[float, float, float]:
    """Bits per byte, and the shares of tokens that were the likeliest and among the likeliest five."""
    step = min(run.checkpoints(), key=lambda saved: saved.progress.val_loss).step
    model, tokenizer = run.load_model(str(step)), load_tokenizer(run.path / "tokenizer")
    nats, ranks = 0.0, []
    for text in texts:
        ids = tokenizer.encode(text, bos=True, eos=True)
        for first in range(0, len(ids) - 1, 16):
            window = torch.tensor(ids[first : first + 17])
            with torch.no_grad():
                chances = model(window[None, :-1])[0].double().softmax(-1)
            right = chances[range(len(window) - 1), window[1:]]
            nats -= right.log().sum().item()
            ranks += (chances > right[:, None]).sum(-1).tolist()
    ranks = np.array(ranks)
    return nats / math.log(2) / sum(map(len, texts)), (ranks < 1).mean(), (ranks < 5).mean()


def without(figures: dict[str, float], *names: str) -> dict[str, float]:
    return {other: value for other, value in figures.items() if other not in names}


def expected(run: Run) -> dict[str, float]:
    with (run.path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
    stories = [tales.story(-1, number) for number in range(4)]
    floor = sum(story.bits for story in stories) / sum(len(story.text) for story in stories)
    bits, top_1, top_5 = predicted(run, held_out())
    written = [tales.grade(line["text"]).passed for line in json.loads((run.path / "grades.json").read_text())]
    weights = load_file(run.checkpoint("last").path / "model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    return {
        "parameters": parameters, "active_parameters": parameters, "steps": 12, "tokens": columns["tokens"][-1],
        "flops": columns["flops"][-1], "seconds": columns["seconds"][-1], "val_loss": columns["val_loss"][-1],
        "accuracy": math.nan,  # of synthetic tasks and pairs alone: it depends on the tokenizer
        "exact": math.nan,  # of pairs
        "best_val_loss": min(columns["val_loss"]), "perplexity": math.exp(columns["val_loss"][-1]),
        "bits_per_byte": columns["bits_per_byte"][-1], "best_bits_per_byte": min(columns["bits_per_byte"]),
        "bits_over_floor": columns["bits_per_byte"][-1] - floor, "text_bits_per_byte": bits, "top_1": top_1,
        "top_5": top_5, "stories": sum(written) / 3, "peak_bytes": 10**8 + len(run.name),
        "tokens_per_second": statistics.median(columns["tokens_per_second"])}


@pytest.mark.slow
def test_every_number_is_what_logs_checkpoints_and_corpus_say(five, command, tmp_path):
    status, said, warned = command("tiny-*", "wide", "pieces", "broken", "--held-out", "2kB", "--csv",
                                   str(tmp_path / "runs.csv"), "--json", str(tmp_path / "runs.json"))
    assert status == 0
    table = pd.read_csv(tmp_path / "runs.csv", index_col="run")
    assert dict(table["line"]) == {"tiny-seed-0": "tiny", "tiny-seed-1": "tiny", "wide": "wide", "pieces": "pieces"}
    again = {name: expected(Run(five / "models" / name)) for name in RUNS}
    for name, figures in again.items():
        assert dict(table.loc[name].drop("line")) == pytest.approx(figures, rel=1e-5, nan_ok=True)
    saved = json.loads((tmp_path / "runs.json").read_text())
    assert {name: row.pop("line") for name, row in saved.items()} == dict(table["line"])
    assert not any(row.pop(name) for row in saved.values() for name in ("accuracy", "exact"))  # none, not nan, in JSON
    assert all(saved[name] == pytest.approx(without(again[name], "accuracy", "exact"), rel=1e-5) for name in RUNS)
    assert warned.count("warning: skipped: ") == 1 and "broken" in warned
    check_printed(said, again)


def printed(said: str) -> dict[str, list[str]]:
    """The words of each row of the printed tables, by its heading."""
    cut = (line.strip().split("  ", 1) for line in said.splitlines())
    return {parts[0]: parts[1].split() for parts in cut if len(parts) == 2}


def check_printed(said: str, again: dict[str, dict[str, float]]) -> None:
    """The printed table: seeds as their mean +- half the interval of Student's t, of one degree of freedom."""
    def cell(name: str, spec: str) -> list[str]:
        first, second = again["tiny-seed-0"][name], again["tiny-seed-1"][name]
        half = 12.706204736 * abs(first - second) / 2
        seeds = f"{(first + second) / 2:{spec}} ± {half:{spec}}" if half else f"{first:{spec}}"
        return [*seeds.split(), *(f"{again[run][name]:{spec}}" for run in ("wide", "pieces"))]

    rows = printed(said)
    assert rows["parameters"] == [f"{again[name]['parameters']:,}" for name in ("tiny-seed-0", "wide", "pieces")]
    for heading, name, spec in (("final bits/byte", "bits_per_byte", ".4f"),
                                ("best bits/byte", "best_bits_per_byte", ".4f"),
                                ("bits/byte over the floor", "bits_over_floor", ".4f"),
                                ("bits/byte, same text", "text_bits_per_byte", ".4f"),
                                ("top-1, same text", "top_1", ".1%"), ("top-5, same text", "top_5", ".1%")):
        assert rows[heading] == cell(name, spec)


@pytest.mark.slow
def test_runs_with_different_tokenizers_are_compared_in_bits_per_byte_and_it_says_so(command):
    status, said, _ = command("tiny-seed-0", "pieces", "--held-out", "0")
    assert status == 0
    assert "val loss" not in said and "perplexity  " not in said and "final bits/byte" in said
    assert "The tokenizers differ (tiny-seed-0: byte, 259 ids; pieces: bpe, 128 ids)" in said
    for column in ("val_loss", "train_loss", "perplexity"):
        status, said, wrong = command("tiny-seed-0", "pieces", "--y", column)
        assert (status, said) == (2, "")
        assert wrong == (f"error: y={column} counts tokens, and the runs have different tokenizers: use bits_per_byte, "
                         "or for training train_bits_per_byte\n")


def test_the_losses_per_token_are_there_where_the_tokenizer_is_one(five, command):
    _, said, _ = command("tiny-seed-0", "wide", "--held-out", "0")
    assert f"{expected(Run(five / 'models' / 'wide'))['val_loss']:.4f}" in said and "final val loss" in said


def test_the_flags_that_differ_are_told_and_no_others(command):
    _, said, _ = command("tiny-*", "wide", "--held-out", "0")
    flags = {name: words for name, words in printed(said).items() if "." in name}
    assert flags == {"model.dim": ["16", "24"], "train.seed": ["0,", "1", "0"]}


def test_a_log_of_others_joins_with_what_it_has(command, tmp_path):
    log = tmp_path / "theirs.csv"
    log.write_text("step,train_loss,val_loss,lr\n1,5.0,5.5,0.1\n2,4.0,4.5,0.1\n")
    status, said, _ = command("wide", str(log), "--y", "val_loss", "lr", "--held-out", "0")
    assert status == 0
    assert "There is only a log of theirs" in said
    rows = printed(said)
    assert [rows[name][-1] for name in ("final val loss", "perplexity", "steps")] == ["4.5000", "90.02", "2"]


def test_the_page_has_the_lines_their_gaps_and_what_each_writes(command, tmp_path):
    status, said, _ = command("tiny-*", "wide", "--held-out", "0", "--prompts", "Once upon", "--html",
                              str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert status == 0 and f"wrote {tmp_path / 'page.html'}" in said
    for words in ("tiny", "wide", "model.dim", "wide lies ", "Once upon", "final bits/byte"):
        assert words in page


def test_a_named_run_that_is_missing_is_told_and_the_others_are_shown(command):
    status, said, warned = command("wide", "wied", "--held-out", "0")
    assert (status, printed(said)["steps"]) == (1, ["12"])
    assert warned == "warning: skipped: wied is not a run, a file, a folder or a pattern for them\n"
    for others in ("broken", "nothing-*"):  # a damaged run, a pattern that matches none
        assert command("wide", others, "--held-out", "0")[0] == 0


@pytest.mark.parametrize(("words", "sentence"), [
    (["broken"], "there is nothing to compare"),
    ([], "there is nothing to compare: name a run"),
    (["wide", "--y", "nothing"], "y=nothing against x=tokens is in no log: use y of train_loss, val_loss"),
    (["wide", "--x", "lr"], "x=lr is not an axis: use one of step, tokens, bytes, seconds, flops"),
    (["wide", "--from", "1e9"], "from=1e+09 leaves nothing of bits_per_byte, which ends at "),
    (["wide", "--smooth", "1.5"], "smooth=1.5 is neither a weight nor a window"),
    (["wide", "--smooth", "inf"], "smooth=inf is neither a weight nor a window"),
    (["wide", "--smooth", "1e300"], "smooth=1e+300 is neither a weight nor a window"),
    (["wide", "--from", "nan"], "from=nan is not finite"),
    (["wide", "--held-out", "much"], "held_out=much is not a size"),
    (["wide", "--prompts", "Once"], "prompts are continued on the page: give --html FILE"),
    (["wide", "--text", "nowhere.txt"], "nowhere.txt cannot be read or written: No such file or directory"),
])
def test_a_mistake_is_one_sentence_and_exit_2(command, words, sentence):
    status, said, wrong = command(*words)
    assert (status, said) == (2, "")
    assert wrong.splitlines()[-1].startswith(f"error: {sentence}")
