"""The benchmarks beside other libraries: same models, same texts, honest ratios, and files that keep them."""

import json
from functools import partial

import pytest
import torch
from helpers import assert_close
from rich.console import Console

from config import override
from experiments import benchmark
from experiments.benchmarks import beside, beside_picture, generation_beside, machine_limits, peers, training_beside
from experiments.benchmarks.beside import OURS, Book, Cell, Times
from experiments.benchmarks.peer_options import Beside, Generate, Train
from model import Model
from training.step import TrainState

SIZES = {"scales": ("30K",), "vocab_size": 61, "rounds": 1, "libraries": ("transformers",), "device": "cpu"}
TRAIN = {"presets": ("gpt2",), "batch_size": 2} | SIZES
GENERATE = {"presets": ("llama2",), "texts": (1, 2), "prompts": (5,), "new_tokens": 7} | SIZES
QUIET = Console(quiet=True)
RUNS = {"train": (training_beside.run, Train, TRAIN), "generate": (generation_beside.run, Generate, GENERATE)}


def measured(name: str, **changes) -> bool:
    run, kind, flags = RUNS[name]
    return run(kind(**flags | changes), QUIET)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A file of each benchmark, measured for real."""
    folder = tmp_path_factory.mktemp("kept")
    found = {name: folder / f"{name}.json" for name in RUNS}
    threads = torch.get_num_threads()
    assert all(measured(name, json=str(path)) for name, path in found.items())
    assert torch.get_num_threads() == threads
    return found


def test_kept_files_are_one_picture(kept, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(beside_picture, "draw_row", lambda axes, cell, name, place: drawn.append((cell.name, name)))
    picture, files = tmp_path / "a.png", tuple(map(str, kept.values()))
    assert beside_picture.run(Beside(files=files, picture=str(picture)), QUIET)
    cells = [cell for path in kept.values() for cell in json.loads(path.read_text())["cells"]]
    assert drawn == [(cell["name"], name) for cell in cells for name in cell["times"] if name != OURS]
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="is there already"):
        beside_picture.run(Beside(files=files, picture=str(picture)), QUIET)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="bad.json cannot be read"):
        beside_picture.run(Beside(files=(str(tmp_path / "bad.json"),), picture=str(tmp_path / "b.png")), QUIET)
    assert not (tmp_path / "b.png").exists()


# ---- the same models ----


@pytest.mark.parametrize("name", RUNS)
def test_transformers_is_measured_with_as_many_parameters_as_ours(name, kept):
    found = json.loads(kept[name].read_text())
    assert found["benchmark"] == name and len(found["cells"]) == {"train": 1, "generate": 2}[name]
    for cell in found["cells"]:
        numbers, times = cell["parameters"], cell["times"]
        assert [*times][0] == OURS and len(times) == {"train": 2, "generate": 3}[name]
        assert numbers.keys() == times.keys() and len({*numbers.values()}) == 1
        assert all(len(each["passed"]) == len(each["busy"]) == 1 for each in times.values())
        assert cell["tokens"] == {"train": 2 * 64}.get(name, cell["tokens"]) and cell["limit"] > 0


def tiny(preset: str, scale: str = "30K", **flags) -> Model:
    cfg = peers.without_dropout(preset, scale, vocab_size=61).model
    return Model(override(cfg, flags)).eval()


@pytest.mark.parametrize("preset", ["gpt2", "llama2", "llama3"])
@pytest.mark.parametrize("library", ["transformers", "litgpt", "x-transformers"])
def test_a_library_has_our_model_where_it_has_its_parts(library, preset):
    pytest.importorskip(library.replace("-", "_"))
    ours, said = tiny(preset, "1M" if library == "x-transformers" else "30K"), []  # whose parameters are not ours
    found = peers.peers_of(ours, peers.family_of(preset), [library], said.append)
    if (library, preset) == ("litgpt", "gpt2"):
        assert not found and said == ["left out of gpt2: litgpt, which has no such positions or head"]
        return
    (peer,), tokens = found, torch.randint(61, (2, 9))
    assert library != "transformers" or peer.model.config._attn_implementation == "sdpa"
    assert abs(peer.num_parameters / ours.num_parameters() - 1) <= peers.ALIKE
    if peer.has_our_weights:
        assert_close(peer.logits(tokens), ours(tokens), "parity")
        assert peer.num_parameters == ours.num_parameters()


def test_a_model_of_another_size_is_left_out(monkeypatch):
    other = tiny("gpt2", vocab_size=67)
    monkeypatch.setitem(peers.MAKERS, "transformers", lambda *_: peers.Peer("transformers", other, other, True))
    said, ours = [], tiny("gpt2")
    assert not peers.peers_of(ours, peers.family_of("gpt2"), ["transformers"], said.append)
    assert said == [f"left out of gpt2: transformers, whose {other.num_parameters():,} parameters are not our "
                    f"{ours.num_parameters():,}"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_with_other_logits_is_refused(precision):
    ours, tokens = tiny("gpt2"), torch.randint(61, (2, 9))
    (peer,) = peers.peers_of(ours, peers.family_of("gpt2"), ["transformers"], print)
    training_beside.require_same_logits(peer, ours, tokens, precision)
    with torch.no_grad():
        ours.blocks[1].mixer.branch.out.weight.mul_(3)
    with pytest.raises(ValueError, match="transformers has our weights, and its logits differ by "):
        training_beside.require_same_logits(peer, ours, tokens, precision)


def test_a_step_of_another_library_is_a_step_of_ours():
    cfg = training_beside.configured(training_beside.Setting("llama2", "30K", "float32", False, 1), Train(**TRAIN))
    ours, batch = Model(cfg.model), training_beside.random_batch(cfg, torch.device("cpu"))
    (peer,) = peers.peers_of(ours, peers.family_of("llama2"), ["transformers"], print)
    step, state = training_beside.PeerStep(peer, cfg.train, batch), TrainState(ours, cfg.train)
    for group in step.optimizer.param_groups:
        group["lr"] = 1e-3
    before = ours(batch.x).detach()
    for number in (1, 2):
        step()
        state.step([batch], number=number, lr=1e-3, noise=[])
    after = ours(batch.x)
    assert (after - before).abs().max() > 0.01
    assert_close(peer.logits(batch.x), after, "parity_grad")


def test_other_texts_fail_the_benchmark(monkeypatch, capsys):
    monkeypatch.setitem(generation_beside.WRITERS, "transformers",
                        lambda model, prompts, number: {"transformers, odd": lambda: [[0] * number] * len(prompts)})
    run, kind, flags = RUNS["generate"]
    assert not run(kind(**flags | {"texts": (1,)}), Console(width=120))
    assert "not the same texts as ours: transformers, odd" in capsys.readouterr().out


# ---- what is there ----


def test_a_library_that_is_not_installed_is_said_and_with_none_nothing_is_measured(monkeypatch):
    said, names = [], ("transformers", "litgpt", "x-transformers")
    monkeypatch.setattr(peers, "find_spec", {"transformers": 1, "x_transformers": 1, "litgpt": None}.get)
    assert peers.installed(names, said.append) == ["transformers", "x-transformers"]
    assert said == ["left out, as not installed: litgpt"]
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="nothing to compare with: pip install transformers litgpt x-transformers"):
        peers.installed(names, said.append)


def test_a_library_that_cannot_be_imported_is_left_out(monkeypatch):
    def make(*_):
        raise ImportError("no lightning\nhere")

    monkeypatch.setitem(peers.MAKERS, "litgpt", make)
    said = []
    assert not peers.peers_of(tiny("llama2"), peers.family_of("llama2"), ["litgpt"], said.append)
    assert said == ["left out: litgpt, which cannot be imported (no lightning here)"]


@pytest.mark.parametrize(("words", "sentence"), [
    ("train --rounds 0", "--rounds 0 is too small"), ("train --threads 1 0", "--threads 0 is too small"),
    ("generate --new-tokens 0", "--new-tokens 0 is too small"), ("generate --prompts", "--prompts has no value"),
    ("train --presets tales", "presets=tales is no preset of a family"), ("train --scales 1X", "--scale 1X is not a"),
    ("train --json nowhere/a.json", "--json nowhere/a.json: there is no folder nowhere"),
    ("generate --json config.py", "--json config.py is there already"),
    ("train --against README.md", "README.md cannot be read: invalid JSON"),
    ("train --device tpu", "device=tpu is not available")])
def test_a_mistake_is_one_sentence_before_anything_is_measured(words, sentence, call, monkeypatch):
    monkeypatch.chdir(benchmark.__file__.rpartition("/experiments/")[0])
    monkeypatch.setattr(beside, "in_turns", None)
    status, output, errors = call(benchmark.main, *words.split())
    assert (status, output, errors.count("\n")) == (2, "", 1) and errors.startswith(f"error: {sentence}")


# ---- times and limits ----


def test_calls_take_turns_after_a_warm_up():
    order = []
    found = beside.in_turns({name: partial(order.append, name) for name in "ab"}, 3, torch.device("cpu"))
    assert order == ["a", "b"] * (3 + beside.WARM_UP)
    assert all(len(times.passed) == len(times.busy) == 3 for times in found.values())


def test_processor_time_counts_on_one_thread_of_a_cpu_alone():
    places = [("cpu", 1), ("cpu", 2), ("cuda", 1)]
    assert [beside.counted(torch.device(kind), threads) for kind, threads in places] == ["busy", "passed", "passed"]


def test_single_operations_are_timed_by_the_events_of_a_gpu(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def elapsed_time(self, end):
            assert done == ["wait", "event", "call", "event", "wait"]
            return 2500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: done.append("wait"))
    took = beside.timed(partial(done.append, "call"), torch.device("cuda"))
    assert took.busy == 2.5 and 0 < took.passed < 2.5
    assert [beside.counted_alone(torch.device(kind), 2) for kind in ("cuda", "cpu")] == ["busy", "passed"]


def test_the_rate_of_products_is_that_of_all_linear_layers(monkeypatch):
    def timed(call, device):
        calls.append(call)
        return beside.Took(passed=9.0, busy=1.0)

    monkeypatch.setattr(machine_limits, "timed", timed)
    monkeypatch.setattr(machine_limits, "LEAST_SECONDS", 0)
    model, rows = tiny("llama2"), 6
    d, h, v, layers = model.cfg.dim, model.cfg.at(0).hidden_width, 61, model.cfg.num_layers
    flops, products = 2 * rows * (layers * (4 * d * d + 3 * d * h) + d * v), layers * 7 + 1
    for backward in (False, True):  # with the gradients of inputs and weights three times as many, of the same size
        calls = []
        rate = machine_limits.matmul_rate(model, rows, torch.float32, "busy", backward=backward)
        assert rate == pytest.approx(flops / products) and len(calls) == 4 * (3 if backward else 1)  # shapes
    assert machine_limits.copy_rate(torch.device("cpu"), "passed") == 2 * machine_limits.COPIED / 9


@pytest.mark.parametrize("cached", [0, 9])
def test_the_operations_of_reading_are_those_of_the_layers_and_of_one_head(cached):
    cfg = override(tiny("llama2").cfg, {"max_seq_len": 40})
    d, h, t, texts = cfg.dim, cfg.at(0).hidden_width, 4, 3
    layer = 2 * t * (4 * d * d + 3 * d * h) + 2 * 2 * t * (cached + t) * d  # scores and weighted values
    found = machine_limits.flops_of_reading(cfg, texts, t, cached=cached)
    rotation = found - texts * (cfg.num_layers * layer + 2 * d * 61)
    assert 0 <= rotation <= 0.02 * found
    assert machine_limits.cached_bytes(cfg) == cfg.num_layers * 2 * d * 4


# ---- ratios and files ----


def cell(ours: list[float], theirs: list[float], *, by: str = "busy", name: str = "a cell") -> Cell:
    other = [1.0] * len(ours)
    times = {OURS: ours, "transformers": theirs}
    return Cell(name=name, tokens=100, limit=0.5, machine="fast", by=by, parameters=dict.fromkeys(times, 7),
                times={who: Times(*((other, own) if by == "busy" else (own, other))) for who, own in times.items()})


@pytest.mark.parametrize("by", ["busy", "passed"])
def test_a_ratio_is_of_one_round_by_the_seconds_that_count(by):
    assert cell([1.0, 2.0, 4.0], [2.0, 1.0, 6.0], by=by).ratios("transformers") == [2.0, 0.5, 1.5]


def test_a_table_has_medians_shares_of_the_limit_and_ratios_from_least_to_most(capsys):
    Console(width=120).print(beside.table_of(cell([1.0, 2.0, 4.0], [2.0, 1.0, 6.0]), {}))
    rows = [[word.strip() for word in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()
            if "│" in line]
    assert rows == [[OURS, "7", "1,000.0", "2,000.0", "50", "25%", "", ""],
                    ["transformers", "7", "1,000.0", "2,000.0", "50", "25%", "1.50", "0.50 to 2.00"]]


@pytest.mark.parametrize(("now", "verdict"), [([1.0, 1.2], ""), ([0.4, 0.6], "slower"), ([1.6, 1.7], "faster"),
                                              ([0.6, 0.7], ""), ([0.7, 1.6], "")])
def test_a_change_is_one_if_all_of_now_lies_beside_all_of_then(now, verdict, tmp_path, capsys):
    then, path = [0.7, 1.0, 1.5], tmp_path / "then.json"
    Book("train", [], new=str(path), old=None, console=QUIET).add(cell([1.0] * 3, then))
    book = Book("train", ["a cell"], new=None, old=str(path), console=Console(width=120))
    book.add(cell([1.0, 1.0], now))
    assert book.is_slower == (verdict == "slower")
    assert f"│ 1.00   │ {verdict}" in capsys.readouterr().out


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_compared_with_its_file_and_with_no_other(name, kept, capsys):
    run, kind, flags = RUNS[name]
    before = json.loads(kept[name].read_text())
    run(kind(**flags | {"against": str(kept[name])}), Console(width=120))
    assert capsys.readouterr().out.count("before") == len(before["cells"])
    for changes in ({"against": str(kept["train" if name == "generate" else "generate"])},
                    {"against": str(kept[name]), "vocab_size": 67}):
        with pytest.raises(ValueError, match="has nothing that is measured now"):
            measured(name, **changes)


FOREIGN = {  # what is changed in a file that was kept, and the sentence
    "a list": (lambda kept: [kept], "input should be an object"),
    "another program's": (lambda kept: {"steps": 3}, "field required"),
    "no benchmark": (lambda kept: kept | {"benchmark": "startup"}, "benchmark='startup': input should be 'train' or"),
    "a text for a time": (lambda kept: with_times(kept, ["1"]), "ours.busy.0='1': input should be a valid number"),
    "a time of nothing": (lambda kept: with_times(kept, [0.0]), "ours.busy.0=0.0: input should be greater than 0"),
    "no time": (lambda kept: with_times(kept, []), "times.ours.busy=[]: list should have at least 1 item"),
    "an endless time": (lambda kept: with_times(kept, [float("inf")]), "input should be a finite number"),
    "other rounds": (lambda kept: with_times(kept, [1.0, 1.0]), "has a cell without as many times of ours"),
    "no times of ours": (lambda kept: without_ours(kept), "has a cell without as many times of ours"),
    "a deep nest": (lambda kept: "[" * 100_000, "cannot be read: "),
}


def with_times(kept: dict, seconds: list) -> dict:
    kept["cells"][0]["times"][OURS]["busy"] = seconds
    return kept


def without_ours(kept: dict) -> dict:
    kept["cells"][0]["times"].pop(OURS)
    return kept


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_one_sentence(case, kept, tmp_path):
    make, sentence = FOREIGN[case]
    changed, path = make(json.loads(kept["train"].read_text())), tmp_path / "foreign.json"
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ValueError, match=".") as error:
        measured("train", against=str(path))
    assert str(error.value).startswith("foreign.json ") and sentence in str(error.value)
    assert "\n" not in str(error.value)
