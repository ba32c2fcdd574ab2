"""Mixers are compared on tasks at the best of several rates, and whatever ends a probing, the same command goes on."""

import math

import pandas as pd
import pytest
from programs import started
from thorough import some

from config import override
from experiments import probe
from experiments.probing import cells, probing
from experiments.probing.cells import make_cells, read_entry
from experiments.probing.probe_options import ProbeOptions
from experiments.probing.probe_pictures import draw_heat_map, draw_lengths
from experiments.probing.states import STATE_FLAGS, equalised, state_bytes
from probes import PROBES

COMMAND, BASE = probe.parse(["--name", "toy"])


def options(**changes) -> ProbeOptions:
    return ProbeOptions(**{"name": "toy", "mixers": ("attention",), "tasks": ("parity",), "rates": (1e-3, 3e-3),
                           "seeds": 2} | changes)


def planned(**changes):
    return make_cells(options(**changes), BASE, BASE)


# ---- the plan ----


def test_a_cell_for_each_mixer_and_task_and_a_run_for_each_rate_and_seed():
    found = planned(mixers=("attention", "attention model.attention.window=8", "latent model.mlp=none"),
                    tasks=("parity", "mqar data.probe.items=4 model.max_seq_len=33"))
    assert [(cell.mixer, cell.task, cell.length) for cell in found] == [
        (mixer, task, length) for task, length in (("parity", 40), ("mqar probe.items=4 max_seq_len=33", 32))
        for mixer in ("attention", "attention attention.window=8", "latent mlp=none")]
    runs = found[4].runs
    assert runs.keys() == {(rate, seed) for rate in (1e-3, 3e-3) for seed in (0, 1)}
    cfg = runs[3e-3, 1]
    assert (cfg.model.attention.window, cfg.data.probe.items, cfg.data.probe.longer) == (8, 4, (2, 4))
    assert (cfg.data.name, cfg.train.lr, cfg.train.seed) == (("mqar",), 3e-3, 1)
    assert cfg.train.name == "toy-attention-attention.window-8-mqar-probe.items-4-max_seq_len-33-lr-0.003-seed-1"


def test_all_tasks_and_flags_alone():
    assert [cell.task for cell in planned(tasks=("all",), rates=(1e-3,), seeds=1)] == [*PROBES]
    entry = read_entry("model.layers=[attention,latent]", "model.mixer", ("attention",), BASE, "mixers")
    assert entry.flags == {"model.layers": ["attention", "latent"]} and entry.label == "layers=attention,latent"


def test_learned_positions_have_no_longer_rows():
    first, second = planned(mixers=("attention model.position=learned", "attention"))
    assert (first.longer, second.longer) == ((), (2, 4))


def test_the_guess_is_the_commonest_answer():
    assert planned()[0].guess == pytest.approx(0.5, abs=0.01)
    assert planned(tasks=("s3",))[0].guess == pytest.approx(1 / 6, abs=0.02)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--mixers", "atention"], "mixers=atention is not known: use some of attention,"),
    (["--tasks", "mqr"], "tasks=mqr is not known: use some of mqar, recall"),
    (["--tasks", "data.seed=3"], "tasks='seed=3' names no task: begin with one of mqar"),
    (["--tasks", "parity data.probe.items=3"], "attention on parity probe.items=3: data.probe.items=3 would change"),
    (["--mixers", "attention model.attention.window=8,9"], "mixers='model.attention.window=8,9' gives model.attention"),
    (["--mixers", "attention", "attention"], "mixers=attention attention has attention twice"),
    (["--model.max-seq-len", "9"], "model.max_seq_len=9 would change nothing: --tasks says what it is in each run"),
    (["--train.lr", "1e-2"], "train.lr=0.01 would change nothing: --rates says what it is in each run"),
    (["--seeds", "0"], "seeds=0 must be 1 or more"), (["--equal-state", "0"], "equal_state=0 must be 1 or more"),
    (["--sweep-seeds", "4"], "sweep_seeds=4 is more than seeds=3"),
    (["--rates", "-1"], "train.lr=-1.0 must be above 0"),
    (["--longer", "1"], "attention on mqar: data.probe.longer=1 must be different numbers from 2 on"),
])
def test_a_mistake_is_one_sentence_and_nothing_is_trained(words, sentence, models, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("experiments.probing.probe_options.RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["probe.py", *words])
    with pytest.raises(SystemExit) as stop:
        probe.main()
    said, errors = capfd.readouterr()
    assert (stop.value.code, errors.count("\n")) == (2, 1) and sentence in errors and not models.exists()


# ---- equal states ----


def test_a_state_is_what_the_cache_holds_of_a_row():
    cfg = override(BASE, {"model.vocab_size": 9, "model.max_seq_len": 40})
    keys_and_values, places = 40 * 2 * 64 * 4, 40 * 8
    assert state_bytes(cfg) == keys_and_values + places


@pytest.mark.parametrize(("flags", "target"), some([
    ({}, 5000), ({"attention.window": 4}, 5000), ({"mixer": "latent"}, 2000), ({"mixer": "min_gru"}, 256),
    ({"mixer": "min_gru"}, 1500), ({"mixer": "hgrn2"}, 6000), ({"mixer": "rg_lru", "rg_lru.num_heads": 2}, 500),
], 3), ids=str)
def test_a_state_is_brought_to_a_size_by_its_flag(flags, target):
    cfg = override(BASE, {"model": flags, "model.vocab_size": 9, "model.max_seq_len": 41})
    found = equalised(cfg, target)
    assert len(found) == 1 and 0.75 < state_bytes(override(cfg, found)) / target <= 1.1
    assert equalised(override(cfg, found), state_bytes(override(cfg, found))) == {}


def test_attention_keeps_no_more_than_there_is():
    assert equalised(override(BASE, {"model.vocab_size": 9}), 1e9) == {}


def test_equal_states_are_part_of_the_mixers_names():
    labels = [cell.mixer for cell in planned(mixers=("attention", "latent"), equal_state=2000, seeds=1)]
    assert [label.partition("=")[0] for label in labels] == ["attention attention.window", "latent attention.window"]


@pytest.mark.parametrize(("target", "flags", "sentence"), [
    (2000, {}, "equal_state=2000: attention would have to keep another number of bytes in a layer than 21,376"),
    (8, STATE_FLAGS, "equal_state=8 is less than model.attention.window can make of attention: it keeps 576 bytes")])
def test_a_state_that_no_flag_makes_so_is_refused(target, flags, sentence, monkeypatch):
    monkeypatch.setattr("experiments.probing.states.STATE_FLAGS", flags)
    with pytest.raises(ValueError) as caught:
        planned(equal_state=target)
    assert str(caught.value).startswith(sentence)


# ---- outcomes ----


@pytest.fixture
def logs(monkeypatch):
    """The logs of runs, by the end of their names; others are not finished."""
    kept = {}

    class Logged:
        def __init__(self, name: str):
            self.name = name

        def log(self) -> pd.DataFrame:
            return kept[self.name]

    monkeypatch.setattr(probing, "Run", Logged)
    monkeypatch.setattr(probing, "is_finished", kept.__contains__)

    def add(cell: cells.Cell, rate: float, seed: int, *accuracies: float) -> None:
        table = pd.DataFrame({"step": [100 * (n + 1) for n in range(len(accuracies))], "accuracy": accuracies})
        kept[cell.runs[rate, seed].train.name] = table.assign(accuracy_2x=table.accuracy / 2, accuracy_4x=0.1)

    return add


def test_the_best_rate_has_the_highest_mean_over_the_seeds_that_finished(logs):
    (cell,) = planned()
    accuracies = {(1e-3, 0): (0.5, 0.6), (1e-3, 1): (0.5, 0.8), (3e-3, 0): (0.99, 0.9), (3e-3, 1): (0.6, 0.7)}
    for key, values in accuracies.items():
        logs(cell, *key, *values)
    found = probing.outcome(cell, {})
    assert found.rate == 3e-3 and found.accuracy[1].mean == pytest.approx(0.8) and found.rates[1e-3].mean == 0.7
    assert found.accuracy[2].mean == pytest.approx(0.4) and found.accuracy[4].mean == pytest.approx(0.1)
    assert found.solved_at == (100,) and (found.missing, found.failure) == (0, None)
    low, high = found.accuracy[1].low, found.accuracy[1].high
    assert high - 0.8 == pytest.approx(0.1 * 12.706, rel=1e-3) == 0.8 - low  # Student's t with one degree of freedom


def test_a_rate_that_lost_a_seed_is_not_the_best(logs):
    (cell,) = planned()
    logs(cell, 1e-3, 0, 0.5)
    logs(cell, 1e-3, 1, 0.5)
    logs(cell, 3e-3, 0, 0.99)
    found = probing.outcome(cell, {cell.runs[3e-3, 1].train.name: "step 7: the loss is nan"})
    assert found.rate == 1e-3 and found.failure == "1 of 4 runs failed: step 7: the loss is nan" and found.missing == 0


def test_seeds_that_do_not_sweep_train_at_the_best_rate_alone(logs):
    (cell,) = planned(seeds=3, sweep_seeds=1)
    assert cell.swept == {(1e-3, 0), (3e-3, 0)}
    logs(cell, 1e-3, 0, 0.5)
    logs(cell, 3e-3, 0, 0.9)
    assert probing.planned(cell).keys() == {(1e-3, 0), (3e-3, 0), (3e-3, 1), (3e-3, 2)}
    assert probing.outcome(cell, {}).missing == 2
    logs(cell, 3e-3, 1, 0.1)  # it stays the best, however the others do
    found = probing.outcome(cell, {})
    assert (found.rate, found.missing, found.accuracy[1].mean) == (3e-3, 1, 0.5)


def test_a_rate_that_is_added_later_wins_by_the_seeds_that_sweep(logs):
    (cell,) = planned(seeds=3, sweep_seeds=1)
    for seed in range(3):
        logs(cell, 1e-3, seed, 0.5)
    logs(cell, 3e-3, 0, 0.9)
    found = probing.outcome(cell, {})
    assert (found.rate, found.missing, found.runs) == (3e-3, 2, (cell.runs[3e-3, 0].train.name,))


def test_pictures_are_drawn_of_what_is_there(logs):
    first, second = planned(tasks=("parity", "s3"))
    for seed in (0, 1):
        logs(first, 1e-3, seed, 0.9 + seed / 20)
    outcomes = [probing.outcome(cell, {}) for cell in (first, second)]
    assert outcomes[1].rate is None and math.isnan(outcomes[1].accuracy[1].mean) and outcomes[1].missing == 4
    axes = draw_heat_map(outcomes, "toy").axes[0]
    assert [text.get_text() for text in axes.texts] == ["92.5%\n± 31.8%", "–"]
    panels = draw_lengths(outcomes, "toy").axes
    (bars,) = [container.lines[2][0].get_segments() for container in panels[0].containers]
    assert bars[0][:, 1] == pytest.approx([0.925 - 0.3176, 1.0], abs=1e-3)  # not above all
    ((x, y),) = [container.lines[0].get_data() for container in panels[0].containers]
    assert list(x) == [41, 82, 164] and y == pytest.approx([0.925, 0.4625, 0.1]) and not panels[1].containers


# ---- the whole of it ----


@pytest.mark.slow
def test_a_probing_writes_its_report_and_the_same_command_has_nothing_left_to_do(models, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("experiments.probing.probe_options.RESULTS", tmp_path / "results")
    monkeypatch.setattr("subprocess.Popen", started)  # the fork server is a fork
    monkeypatch.setattr("sys.argv", [
        "probe.py", "--name", "toy", "--tasks", "parity", "mano", "--rates", "3e-3", "--seeds", "1", "--jobs", "2",
        "--longer", "2", "--model.dim", "16", "--train.steps", "4", "--train.eval-every", "2",
        "--train.batch-size", "4", "--train.eval-tokens", "200", "--train.final-eval-share", "0"])
    probe.main()
    first = capfd.readouterr().out
    assert "2 of 2" in first and "parity: attention " in first and "a constant guess" in first
    folder = tmp_path / "results" / "toy"
    assert {path.name for path in folder.iterdir()} >= {"report.html", "table.csv", "heat.png", "lengths.png", "logs"}
    table = pd.read_csv(folder / "table.csv")
    assert table.task.tolist() == ["parity", "mano"] and table[["accuracy", "accuracy_2x"]].notna().all(axis=None)
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "<script" not in page and "arXiv:2411.12537" in page
    probe.main()
    assert capfd.readouterr().out.splitlines()[2:] == ["going on: 2 of 2 runs are there", *first.splitlines()[4:]]
