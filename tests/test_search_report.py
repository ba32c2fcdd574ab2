"""What a search leaves behind: configurations that train, tables that add up, pictures of what there is."""

import io
import json
import math
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_studies import LIMIT, MB, add, empty_study, searched
from matplotlib.image import imread
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from config import Config, load_config, override, to_dict
from experiments.searching.losses import meanings, signs_before
from experiments.searching.outcomes import measured
from experiments.searching.plots import NothingToDraw, draw, draw_memory, importances
from experiments.searching.report import TOP, write_report

RATE, DIM = FloatDistribution(1e-4, 1e-1, log=True), IntDistribution(16, 128, step=16)
NORM = CategoricalDistribution(["rms", "layer"])
PICTURES = {"history.png", "importances.png", "slice.png", "contour.png", "memory.png"}


def rate(value: float) -> dict:
    return {"train.lr": (RATE, value)}


def section(page: str, title: str) -> pd.DataFrame:
    """A table of trials.md."""
    lines = page.split(f"## {title}")[1].split("\n## ")[0].strip().splitlines()
    lines = [line for line in lines if line.startswith("|")]
    heading, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return pd.DataFrame(rows, columns=heading)


# ---- the best configurations ----


def test_the_best_config_is_the_base_with_the_trials_flags(tmp_path):
    base = override(Config(), {"model.num_layers": 2, "train.seed": 7, "train.name": "base"})
    study = empty_study(base=json.loads(json.dumps(to_dict(base))))
    add(study, "done", 0.5, params=rate(0.01))
    add(study, "done", 0.4, flags={"model.dim": 64, "train.seed": 9, "train.name": "made-0001"},
        shrunk={"train.batch_size": 2, "train.accumulation": 4})
    report = write_report(study, tmp_path)
    assert [path.name for path in report.configs] == ["best.json", "best-2.json"]
    assert load_config(tmp_path / "best.json") == override(base, {
        "model.dim": 64, "train.batch_size": 2, "train.accumulation": 4, "train.name": None, "train.seed": 7})
    assert load_config(tmp_path / "best-2.json") == override(base, {"train.lr": 0.01, "train.name": None})


def test_a_flag_that_is_a_list_comes_back_as_the_config_holds_it(tmp_path):
    study = empty_study()
    add(study, "done", 0.5, flags={"model.layers": ["attention", "none"]})
    write_report(study, tmp_path)
    assert load_config(tmp_path / "best.json").model.layers == ("attention", "none")


def test_a_search_over_a_flag_that_is_a_list_has_all_its_tables(tmp_path):
    study, choices = empty_study(), CategoricalDistribution(['["attention"]', '["attention", "none"]', '["base"]'])
    for value, layers in ((0.5, ["attention", "none"]), (0.6, ["attention"]), (0.7, ["base"])):
        add(study, "done", value, params={"model.layers": (choices, json.dumps(layers))},
            flags={"model.layers": layers, "train.lr": 0.01})
    report = write_report(study, tmp_path)
    assert 'best: trial 0, 0.5: model.layers=["attention", "none"] train.lr=0.01' in str(report)
    assert '["attention", "none"]' in (tmp_path / "trials.md").read_text()
    assert list(report.table["model.layers"])[:2] == ['["attention", "none"]', '["attention"]']


@pytest.mark.slow
def test_no_more_than_the_top_are_written_and_those_of_last_time_are_gone(tmp_path):
    (tmp_path / "best-99.json").write_text("{}")
    (tmp_path / "contour.png").write_text("old")
    study = empty_study()
    for number in range(TOP + 2):
        add(study, "done", 1.0 - number / 100, params=rate(0.001 * (number + 1)))
    report = write_report(study, tmp_path)
    assert [trial.number for trial in report.best][:3] == [TOP + 1, TOP, TOP - 1]
    assert sorted(tmp_path.glob("best*.json")) == sorted(report.configs) and len(report.configs) == TOP
    assert not (tmp_path / "contour.png").exists()


def test_more_is_better_where_the_study_says_so(tmp_path):
    study = empty_study("accuracy")
    add(study, "done", 0.7)
    add(study, "done", 0.9)
    assert [trial.number for trial in write_report(study, tmp_path).best] == [1, 0]


def test_a_trial_repeated_over_seeds_counts_with_its_mean_and_before_those_that_were_not(tmp_path):
    study = empty_study()
    lucky = add(study, "done", 0.30, params=rate(0.1))
    twice = add(study, "done", 0.35, params=rate(0.01))
    worse = add(study, "done", 0.34, params=rate(0.02))
    for value, of in ((0.37, twice), (0.39, twice), (0.50, worse)):
        add(study, "done", value, params=rate(0.01), repeat_of=of)
    report = write_report(study, tmp_path)
    assert [trial.number for trial in report.best] == [twice, worse, lucky]
    assert [trial.value for trial in report.best] == pytest.approx([0.37, 0.42, 0.30])
    first = section((tmp_path / "trials.md").read_text(), "Done, best first").iloc[0]
    assert first["bits_per_byte"] == "0.37 (3 seeds: 0.35 to 0.39)"
    assert "3 done, 3 repeat" in report.summary


def test_of_several_objectives_the_best_are_those_that_no_other_beats(tmp_path):
    study = empty_study("bits_per_byte", "parameters")
    for values in ((0.5, 100), (0.4, 200), (0.6, 150), (0.3, 900), (0.3, 950)):
        add(study, "done", *values)
    assert [trial.number for trial in write_report(study, tmp_path).best] == [3, 1, 0]


def test_the_report_says_what_is_best_and_how_to_train_it(tmp_path):
    study = empty_study()
    add(study, "done", 0.51234, params=rate(0.0123456))
    lines = str(write_report(study, tmp_path)).splitlines()
    assert lines[-3:] == ["best: trial 0, 0.5123: train.lr=0.01235",
                          f"train it: python train.py --config {tmp_path / 'best.json'} --train.name NAME",
                          f"tables and pictures: {tmp_path}"]
    assert "no importances.png: importances need 5 trials that are done, and there are 1" in lines


@pytest.mark.parametrize(("value", "said"), [(0.3, "the base: trial 1, not beaten"), (0.7, "the base: trial 1, 0.7")])
def test_the_report_says_how_the_base_did(tmp_path, value, said):
    study = empty_study()
    add(study, "done", 0.5, params=rate(0.01))
    add(study, "done", value, params=rate(0.02), is_base=True)
    assert said in str(write_report(study, tmp_path)).splitlines()


# ---- what counts as measured ----


@pytest.mark.parametrize(("state", "values"), [
    (TrialState.FAIL, ()), (TrialState.PRUNED, ()), (TrialState.COMPLETE, (0.1,))])
def test_whatever_a_sampler_was_told_a_skipped_trial_never_counts_as_done(tmp_path, state, values):
    study = empty_study()
    add(study, "done", 0.5, params=rate(0.01), predicted_low_bytes=400 * MB, predicted_high_bytes=500 * MB)
    add(study, "oversized", *values, params=rate(0.1), state=state, predicted_low_bytes=900 * MB)
    report = write_report(study, tmp_path)
    assert [trial.number for trial in report.best] == [0]
    assert "1 done, 1 skipped for memory" in report.summary
    skipped = section((tmp_path / "trials.md").read_text(), "Skipped for memory").iloc[0]
    assert (skipped["needs at least"], skipped["of the limit"]) == ("900 MB", "1.29 x")


def test_a_study_that_still_runs_is_told_of_as_it_stands(tmp_path):
    study = empty_study()
    add(study, "done", 0.5)
    study.ask().set_user_attr("flags", {})
    study.enqueue_trial({})
    assert "1 done, 1 running, 1 waiting" in write_report(study, tmp_path).summary


def test_blocks_of_one_token_have_no_bound():
    study = empty_study("bits_per_byte")
    for block_len in (1, 4):
        add(study, "done", 1.0, flags={"train.objective": "block_diffusion", "train.diffusion.block_len": block_len})
    assert signs_before(study) == {0: [""], 1: ["≤ "]}
    assert meanings(study) == " The loss of block_diffusion is an upper bound."


@pytest.mark.parametrize(("column", "says"), [("bits_per_byte", True), ("tokens_per_second", False)])
def test_losses_that_are_not_those_of_the_text_are_said_to_be_so(column, says, tmp_path):
    study = empty_study(column)
    for objective in (None, "masked_diffusion"):
        add(study, "done", 0.9 if objective else 1.0, flags={"train.objective": objective} if objective else {})
    add(study, "done", 1.0, flags={"train.objective": "seq2seq"})  # of pairs, as next_token
    study.set_user_attr("base", to_dict(override(Config(), {"data.name": "tales-reversed", "data.packing": "pad"})))
    report = write_report(study, tmp_path)
    summary = report.summary
    assert "seq2seq" not in summary
    assert ("The loss of masked_diffusion is an upper bound." in summary) == says and "next_token" not in summary
    value = "≤ 0.9" if says else "0.9"
    assert f"best: trial 1, {value}: " in str(report)
    assert list(section((tmp_path / "trials.md").read_text(), "Done, best first")[column]) == [value, "1", "1"]


# ---- tables ----


@pytest.mark.slow
def test_the_tables_hold_every_trial_as_the_study_does(tmp_path):
    study = searched(40)
    report = write_report(study, tmp_path)
    table = pd.read_csv(tmp_path / "trials.csv", float_precision="round_trip")
    assert list(table.trial) == list(range(40))
    for trial, (_, row) in zip(study.trials, table.iterrows(), strict=True):
        known = trial.user_attrs
        assert row.outcome == known["outcome"]
        assert row.bits_per_byte == trial.value if row.outcome == "done" else math.isnan(row.bits_per_byte)
        for name in ("parameters", "predicted_low_bytes", "predicted_high_bytes", "peak_bytes", "seconds"):
            assert row[name] == known[name] if name in known else math.isnan(row[name])
        for name in ("model.dim", "train.lr", "model.activation"):
            assert row[name] == known["flags"][name] if name in known["flags"] else pd.isna(row[name])
    page = (tmp_path / "trials.md").read_text()
    sections = {"done": "Done, best first", "pruned": "Pruned", "oversized": "Skipped for memory"}
    for outcome, title in sections.items():
        rows = section(page, title)
        assert sorted(rows.trial.astype(int)) == list(table.trial[table.outcome == outcome])
    assert list(section(page, sections["done"]).bits_per_byte.astype(float)) == pytest.approx(
        sorted(table.bits_per_byte.dropna()), rel=1e-3)
    assert len(report.table) == 40


@pytest.mark.slow
def test_the_share_of_time_for_skipped_trials_is_that_of_the_seconds_written_down(tmp_path):
    study = searched(40)
    seconds = {number: trial.user_attrs.get("seconds", 0) + trial.user_attrs["predict_seconds"]
               for number, trial in enumerate(study.trials)}
    skipped = [n for n in seconds if study.trials[n].user_attrs["outcome"] == "oversized"]
    expected = sum(seconds[n] for n in skipped) / sum(seconds.values())
    report = write_report(study, tmp_path)
    assert len(skipped) > 5 and report.oversized_share == pytest.approx(expected)
    assert f"{sum(seconds.values()):,.0f} s, {expected:.2%} of it" in report.summary


def test_only_flags_that_vary_are_columns(tmp_path):
    study = empty_study()
    for dim, activation in ((16, None), (32, "silu")):
        flags = {"model.dim": dim, "model.num_layers": 2} | ({"model.activation": activation} if activation else {})
        add(study, "done", 0.5, flags=flags)
    rows = section((write_report(study, tmp_path).files[0]).read_text(), "Done, best first")
    assert {"model.dim", "model.activation"} < set(rows) and "model.num_layers" not in rows
    assert list(rows["model.activation"]) == ["", "silu"]


def test_failures_and_invalid_flags_are_told_with_their_reasons(tmp_path):
    study = empty_study()
    add(study, "invalid", reason="num_heads=3 does not divide dim=16 | choose\na divisor")
    add(study, "crashed", reason="ended with status 1", seconds=3.5, peak_bytes=400 * MB)
    add(study, "out of memory", reason="status 76", predicted_low_bytes=400 * MB, predicted_high_bytes=500 * MB)
    report = write_report(study, tmp_path)
    page = (tmp_path / "trials.md").read_text()
    assert section(page, "Invalid").reason[0] == "num_heads=3 does not divide dim=16 / choose a divisor"
    failed = section(page, "Failed")
    assert list(failed.outcome) == ["crashed", "out of memory"] and failed.reason[0] == "ended with status 1"
    assert (failed.measured[0], failed.predicted[1]) == ("400 MB", "400 MB to 500 MB")
    assert "1 invalid, 1 out of memory, 1 crashed" in report.summary


# ---- pictures ----


@pytest.mark.slow
def test_a_search_gives_every_picture(tmp_path):
    report = write_report(searched(40), tmp_path)
    assert set(report.left_out) <= {"plots.html"}  # where plotly is not installed
    assert {path.name for path in report.files} >= PICTURES | {"trials.csv", "trials.md"}
    for name in PICTURES:
        assert imread(tmp_path / name)[..., :3].std() > 0.05  # not a blank page


@pytest.mark.slow
def test_every_objective_has_its_pictures(tmp_path):
    report = write_report(searched(30, "bits_per_byte", "parameters"), tmp_path)
    names = {path.name for path in report.files}
    assert names >= PICTURES | {"pareto.png", "slice-parameters.png", "history-parameters.png"}
    assert set(report.left_out) <= {"plots.html"}


@pytest.mark.parametrize("make", [
    lambda study: None,
    lambda study: add(study, "crashed", reason="it fell"),
    lambda study: add(study, "oversized", params=rate(0.1), predicted_low_bytes=900 * MB),
    lambda study: add(study, "invalid", params=rate(0.1), reason="no"),
], ids=["empty", "failed", "oversized", "invalid"])
def test_without_a_trial_that_is_done_there_are_tables_and_a_sentence_for_each_picture(tmp_path, make):
    study = empty_study()
    make(study)
    report = write_report(study, tmp_path)
    assert [path.name for path in report.files] == ["trials.md", "trials.csv"] and report.configs == ()
    assert report.left_out == dict.fromkeys(PICTURES | {"plots.html"}, "no trial is done")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_trials_leave_out_importances_and_say_how_few(tmp_path, count):
    study = empty_study()
    for number in range(count):
        add(study, "done", 0.5 - number / 100, params=rate(0.001 * (1 + number)))
    report = write_report(study, tmp_path)
    assert report.left_out["importances.png"] == f"importances need 5 trials that are done, and there are {count}"
    assert (tmp_path / "history.png").exists()
    assert ("slice.png" in report.left_out) == (count == 1)


def test_one_parameter_has_a_slice_and_no_contour(tmp_path):
    study = empty_study()
    for number in range(8):
        add(study, "done", 0.5 - number / 100, params=rate(0.001 * (1 + number)))
    report = write_report(study, tmp_path)
    assert "two parameters" in report.left_out["contour.png"]
    assert (tmp_path / "slice.png").exists() and (tmp_path / "importances.png").exists()


def test_a_conditional_parameter_with_one_value_so_far_is_in_no_picture(tmp_path):
    study = empty_study()
    for number in range(8):
        width = {"model.hidden_dim": (DIM, 32)} if number % 2 else {}
        add(study, "done", 0.5 - number / 100, params=rate(0.001 * (1 + number)) | width)
    report = write_report(study, tmp_path)
    assert list(importances(measured(study))) == ["train.lr"]
    assert "two parameters" in report.left_out["contour.png"] and (tmp_path / "slice.png").exists()


def test_choices_alone_have_their_pictures(tmp_path):
    study = empty_study()
    for number in range(8):
        mixers = ['["attention"]', '["attention", "none"]']  # Optuna's names of lists
        add(study, "done", 0.5 - number / 100, flags={"model.layers": json.loads(mixers[number // 4])}, params={
            "model.norm": (NORM, NORM.choices[number % 2]),
            "model.layers": (CategoricalDistribution(mixers), mixers[number // 4])})
    assert {path.name for path in write_report(study, tmp_path).files} >= PICTURES - {"memory.png"}


def test_values_that_are_not_finite_are_in_the_tables_and_in_no_picture(tmp_path):
    study = empty_study()
    for number in range(6):
        add(study, "done", 0.5 + number / 100, params=rate(0.001 * (1 + number)))
    add(study, "done", math.inf, params=rate(0.1))
    assert write_report(study, tmp_path).best[-1].number == 5
    (axes,) = draw(measured(study), "history").axes
    assert np.isfinite(np.array(axes.collections[0].get_offsets())).all(1).sum() == 6


def points(axes) -> list[list[float]]:
    """Where an axes has dots."""
    return [point for dots in axes.collections for point in np.array(dots.get_offsets()).tolist()]


def test_the_history_shows_what_is_done_and_the_best_so_far():
    study = empty_study()
    for outcome, *value in (("done", 0.5), ("pruned",), ("done", 0.6), ("oversized",), ("done", 0.4), ("lost",)):
        add(study, outcome, *value)
    (axes,) = draw(measured(study), "history").axes
    assert [point for point in points(axes) if not math.isnan(point[1])] == [[0, 0.5], [2, 0.6], [4, 0.4]]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5, 0.5, 0.5, 0.4, 0.4]
    assert axes.get_ylabel() == "bits_per_byte"


def test_the_best_so_far_rises_where_more_is_better():
    study = empty_study("accuracy")
    for value in (0.5, 0.4, 0.7):
        add(study, "done", value)
    (axes,) = draw(measured(study), "history").axes
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5, 0.7]


def test_a_slice_has_the_scale_of_its_parameter_and_the_trials_that_are_done():
    study = searched(40)
    axes = {one.get_xlabel(): one for one in draw(measured(study), "slice").axes if one.get_xlabel()}
    assert {name: one.get_xscale() for name, one in axes.items()} == {
        "train.lr": "log", "model.dim": "linear", "model.num_layers": "linear", "model.norm": "linear",
        "model.mlp": "linear", "train.batch_size": "linear", "model.activation": "linear"}
    done = [trial for trial in study.trials if trial.user_attrs["outcome"] == "done"]
    assert points(axes["train.lr"]) == [[trial.params["train.lr"], trial.value] for trial in done]
    having = [trial for trial in done if "model.activation" in trial.params]
    assert 0 < len(points(axes["model.activation"])) == len(having) < len(done)


def test_the_contour_is_of_the_two_parameters_that_matter_most():
    results = measured(searched(40))
    axes = draw(results, "contour").axes[0]
    assert {axes.get_xlabel(), axes.get_ylabel()} == set(list(importances(results))[:2])


def test_dollars_in_a_choice_are_no_formula():
    study, separators = empty_study(), CategoricalDistribution(["$a$", "$x_{$"])
    for number in range(6):
        add(study, "done", 0.1 * number, params={"data.separator": (separators, separators.choices[number % 2])} | rate(
            0.001 * (1 + number)))
    for kind in ("slice", "contour"):
        figure = draw(measured(study), kind)
        figure.savefig(io.BytesIO())  # "$x_{$" is no formula that could be drawn
        words = {text.get_text().strip("'") for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
                 for text in axis.get_ticklabels()}
        assert {r"\$a\$", r"\$x_{\$"} <= words


def test_a_picture_leaves_the_style_of_others_alone():
    before = dict(plt.rcParams)
    draw(measured(searched(20)), "slice")
    assert dict(plt.rcParams) == before and not plt.get_fignums()


def test_the_memory_picture_has_prediction_measurement_limit_and_what_was_skipped():
    study = empty_study()
    for low, peak, value in ((400, 410, 0.5), (600, 650, 0.4)):
        add(study, "done", value, predicted_low_bytes=low * MB, predicted_high_bytes=2 * low * MB, peak_bytes=peak * MB)
    add(study, "done", 0.3)  # made without a prediction
    add(study, "oversized", predicted_low_bytes=900 * MB)
    (axes,) = draw_memory(measured(study)).axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert drawn == {"measured": [410 * MB, 650 * MB], "skipped, 1: least predicted": [900 * MB],
                     "limit, 0.7 GB": [LIMIT, LIMIT]}
    assert [[end[0] / MB for end in one] for one in axes.collections[0].get_segments()] == [[400, 800], [600, 1200]]


@pytest.mark.parametrize(("first", "better"), [("accuracy", 1), ("bits_per_byte", -1)])
def test_the_front_is_of_the_trials_that_no_other_beats(first, better):
    study = empty_study(first, "parameters")
    for value, parameters in ((0.5, 100), (0.6, 200), (0.4, 150), (0.7, 900)):
        add(study, "done", 1 + better * value, parameters)
    (axes,) = draw(measured(study), "pareto").axes
    assert sorted(points(axes)[-3:], key=lambda point: point[1]) == [
        [1 + better * value, parameters] for value, parameters in ((0.5, 100), (0.6, 200), (0.7, 900))]


@pytest.mark.parametrize("objective", ["bits_per_byte", "accuracy"])
def test_what_decides_is_the_most_important(objective):
    study, chance = empty_study(objective), np.random.default_rng(0)
    for _ in range(40):
        lr, dim = float(10 ** chance.uniform(-4, -1)), int(16 * chance.integers(1, 9))
        loss = 1 + 0.2 * math.log10(lr / 0.003) ** 2
        add(study, "done", loss if objective == "bits_per_byte" else 2 - loss,
            params={"train.lr": (RATE, lr), "model.dim": (DIM, dim)})
    found = importances(measured(study))
    assert list(found) == ["train.lr", "model.dim"] and found["train.lr"] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    labels = [label.get_text() for label in draw(measured(study), "importances").axes[0].get_yticklabels()]
    assert labels == ["model.dim", "train.lr"]  # from below


def test_pictures_say_why_they_are_not_there():
    with pytest.raises(NothingToDraw, match="no trial is done"):
        draw(measured(empty_study()), "slice")


# ---- Optuna's own ----


@pytest.mark.slow
def test_optunas_plots_are_on_one_page_that_needs_no_network(tmp_path):
    pytest.importorskip("plotly")
    write_report(searched(20), tmp_path)
    write_report(searched(20, "accuracy", "seconds"), tmp_path / "several")
    page = (tmp_path / "plots.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["bits_per_byte, trial by trial", "bits_per_byte by parameter", "What bits_per_byte depends on",
                      "bits_per_byte by pairs of parameters", "bits_per_byte, all parameters at once",
                      "The trials as they went"]
    assert not re.search(r'<(script|link)[^>]+(src|href)=', page)
    assert page.count("Plotly.newPlot(") == len(titles) and 3e6 < len(page) < 8e6
    assert page.count('"showSendToCloud": false') == len(titles)
    assert "<h2>Pareto front</h2>" in (tmp_path / "several" / "plots.html").read_text()


@pytest.fixture
def dashboard(tmp_path):
    """The address of an optuna-dashboard that shows a search's journal."""
    pytest.importorskip("optuna_dashboard")
    journal = tmp_path / "journal.log"
    searched(20, storage=JournalStorage(JournalFileBackend(str(journal))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from importlib.metadata import entry_points; list(entry_points(name='optuna-dashboard'))[0].load()()"
    with (tmp_path / "said.txt").open("w") as said, subprocess.Popen(
            [sys.executable, "-c", command, str(journal), "--port", str(port)], stdout=said, stderr=said) as process:
        yield f"http://127.0.0.1:{port}"
        process.kill()


def fetch(address: str) -> bytes:
    """A page, from a server that may still be starting."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        try:
            return opener.open(address, timeout=10).read()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise TimeoutError(address)


@pytest.mark.slow
def test_optuna_dashboard_opens_the_study(dashboard):
    (study,) = json.loads(fetch(f"{dashboard}/api/studies"))["study_summaries"]
    assert study["study_name"] == "made"
    trials = json.loads(fetch(f"{dashboard}/api/studies/{study['study_id']}?after=0"))["trials"]
    states = [trial["state"] for trial in trials]
    assert len(trials) == 20 and {"Complete", "Pruned", "Fail"} == set(states)
    assert {attr["key"] for attr in trials[0]["user_attrs"]} >= {"outcome", "predicted_low_bytes"}
    assert b"<html" in fetch(f"{dashboard}/dashboard").lower()
