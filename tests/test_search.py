"""A search trains nothing that would not fit, outlives its trials and its own death, and does nothing twice."""

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from fresh_process import child_baseline_bytes
from optuna.trial import FrozenTrial, TrialState
from searching_parts import MB, finish, outcomes, room, start, study, wait_for, write_space

from config import load_config
from experiments.searching import shared
from experiments.searching.jobs import SPARE_BYTES, SPARE_RATIO
from experiments.searching.report import write_report
from run_store.listing import read_config

pytestmark = pytest.mark.slow


def trained(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "models").glob("toy-*"))


def last_line(folder: Path, run: str) -> dict[str, float]:
    """The last line of a run's log; empty columns are left out."""
    head, *lines = (folder / "models" / run / "log.csv").read_text().splitlines()
    return {name: float(text) for name, text in zip(head.split(","), lines[-1].split(","), strict=True) if text}


def live_processes(folder: Path) -> list[str]:
    """The command lines of other processes that have a file of the folder open: they work for its search."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            opened = [os.readlink(path) for path in (process / "fd").iterdir()]
            if process.name != str(os.getpid()) and any(path.startswith(f"{folder}/") for path in opened):
                lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return lines


@pytest.fixture(scope="module")
def eventful(tmp_path_factory):
    """A study of several objectives: 16 and 24 wide are trained, 32 crashes, and 64 kills the process that predicts."""
    folder = tmp_path_factory.mktemp("eventful")
    write_space(folder, {"model.dim": [16, 24, 32, 64]}, {"train.epochs": 0.5})
    objectives = ["bits_per_byte", "parameters", "peak_bytes"]
    assert finish(start(folder, trials=4, sampler="grid", objective=objectives, trainer="searching_parts:raising",
                        predictor="searching_parts:killing"))[0] == 0
    assert_reports_say_the_steps(folder)
    return study(folder)


# ---- what is trained ----


def test_what_fits_is_a_saved_run_and_what_does_not_never_starts_and_the_best_is_repeated(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24, 28, 64]})
    assert finish(start(tmp_path, trials=4, jobs=2, sampler="grid", repeat_best=1, repeat_seeds=2, pruner="none",
                        fresh=True)) == (0, "", "")
    found = study(tmp_path)
    assert Counter(outcomes(found)) == {"done": 2 + 2, "oversized": 1, "invalid": 1}
    limit, idle = found.user_attrs["limit_bytes"], found.user_attrs["baseline_bytes"]
    assert abs(idle - child_baseline_bytes()) < 50 * MB  # as much as a process that is no fork
    for trial in found.trials:
        attributes = trial.user_attrs
        match attributes["outcome"]:
            case "done":
                assert attributes["run"] == f"toy-{trial.number:04d}" and attributes["predicted_low_bytes"] <= limit
                assert 0 < attributes["peak_bytes"] <= limit and attributes["parameters"] > 0
                assert read_config(tmp_path / "models" / attributes["run"]).model.dim == trial.params["model.dim"]
                assert trial.value == last_line(tmp_path, attributes["run"])["bits_per_byte"]
            case "oversized":
                assert attributes["predicted_low_bytes"] > limit and "run" not in attributes
            case "invalid":
                assert trial.params["model.dim"] == 28 and "predicted_low_bytes" not in attributes
    assert trained(tmp_path) == [trial.user_attrs["run"] for trial in found.trials if "run" in trial.user_attrs]
    assert not live_processes(tmp_path)
    assert_best_is_repeated([trial for trial in found.trials if trial.user_attrs["outcome"] == "done"], seeds={1, 2})


def assert_best_is_repeated(done: list[FrozenTrial], *, seeds: set[int]) -> None:
    """The best of the trials that the search drew has further trials, one for each of these seeds."""
    first = [trial for trial in done if "repeat_of" not in trial.user_attrs]
    again = [trial for trial in done if "repeat_of" in trial.user_attrs]
    best = min(first, key=lambda trial: trial.value)
    assert len(first) == 2 and len(again) == len(seeds)
    assert {trial.user_attrs["repeat_of"] for trial in again} == {best.number}
    assert {trial.user_attrs["seed"] for trial in again} == seeds and best.user_attrs["seed"] == 0
    assert all(trial.params == best.params for trial in again)


def test_asked_to_a_search_shrinks_before_it_skips_and_trains_on_as_many_tokens(tmp_path):
    write_space(tmp_path, {"train.batch_size": [2, 4]}, {"train.tokens": 160})
    assert finish(start(tmp_path, trials=2, sampler="grid", on_exceed="shrink", predictor="searching_parts:by_batch",
                        pruner="none")) == (0, "", "")
    found = study(tmp_path)
    assert outcomes(found) == ["done", "done"]
    for trial in found.trials:
        rows, train = trial.params["train.batch_size"], read_config(tmp_path / "models" / trial.user_attrs["run"]).train
        assert trial.user_attrs["shrunk"] == {"train.batch_size": 1, "train.accumulation": rows}
        assert (train.batch_size, train.accumulation, train.tokens) == (1, rows, None)
        assert abs(16 * rows * train.steps - 160) <= 16 * rows / 2
    assert_reports_say_the_steps(tmp_path)


def assert_reports_say_the_steps(folder: Path) -> None:
    """The configurations of the report train as long as their trials, whose base said it in another way."""
    report = write_report(study(folder), folder / "report")
    for trial, path in zip(report.best, report.configs, strict=True):
        cfg = read_config(folder / "models" / trial.user_attrs["run"])
        assert (cfg.train.tokens, cfg.train.epochs) == (None, None)
        assert load_config(path).train.steps == cfg.train.steps


def test_where_nothing_fits_the_search_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "GIVE_UP_AFTER", 20)
    write_space(tmp_path, {"model.dim": [128, 256], "train.lr": {"float": [1e-3, 1e-1]}})
    status, _, errors = finish(start(tmp_path))
    assert status == 1 and "20 configurations in a row were not to be trained" in errors
    assert outcomes(study(tmp_path)) == 20 * ["oversized"] and not trained(tmp_path)


def test_parallel_trials_share_the_limit_by_what_they_need(tmp_path):
    # 16 and 24 wide fit side by side; 32 wide only alone
    write_space(tmp_path, {"model.dim": [16, 24, 32]})
    finish(start(tmp_path, trials=3, jobs=3, sampler="grid", ram_limit=room(780, processes=2)))
    spans = {}
    for trial in study(tmp_path).trials:
        run = tmp_path / "models" / trial.user_attrs["run"]
        spans[trial.params["model.dim"]] = ((run / "config.json").stat().st_mtime, (run / "loss.png").stat().st_mtime)
    assert len(spans) == 3
    for other in (16, 24):
        assert spans[32][0] > spans[other][1] or spans[other][0] > spans[32][1]


def test_every_point_of_a_grid_is_trained_once_by_two_searches(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24], "train.lr": [0.01, 0.02]})
    searches = [start(tmp_path, trials=50, sampler="grid", jobs=2) for _ in range(2)]
    assert [finish(search)[0] for search in searches] == [0, 0]
    params = Counter(json.dumps(trial.params, sort_keys=True) for trial in study(tmp_path).trials
                     if trial.user_attrs["outcome"] in ("done", "pruned"))
    assert len(params) == 4 and set(params.values()) == {1}


def test_several_objectives_give_a_front(eventful):
    by_dim = {trial.params["model.dim"]: trial for trial in eventful.trials if trial.values}
    assert [by_dim[dim].values[1] for dim in (16, 24)] == [
        by_dim[dim].user_attrs["parameters"] for dim in (16, 24)] == sorted(by_dim[dim].values[1] for dim in (16, 24))
    assert all(trial.values[2] == trial.user_attrs["peak_bytes"] for trial in by_dim.values())
    assert by_dim[16] in eventful.best_trials


def test_trials_of_equal_time_have_as_many_steps_as_fit(tmp_path):
    write_space(tmp_path, {"model.dim": [64], "train.batch_size": [4, 256]})
    assert finish(start(tmp_path, trials=2, sampler="grid", trial_seconds=1, ram_limit=room(1540),
                        pruner="none"))[0] == 0
    steps = {}
    for trial in study(tmp_path).trials:
        taken = last_line(tmp_path, trial.user_attrs["run"])["step"]
        assert taken == read_config(tmp_path / "models" / trial.user_attrs["run"]).train.steps
        steps[trial.params["train.batch_size"]] = taken
    assert steps[4] > 1.5 * steps[256]


def test_a_trial_over_seeds_is_their_mean_and_wilcoxon_spares_a_hopeless_one_its_last(tmp_path):
    write_space(tmp_path, {"train.lr": [0.01, 1e-7]})
    assert finish(start(tmp_path, trials=2, sampler="grid", pruner="wilcoxon", seeds=5))[0] == 0
    base, hopeless = study(tmp_path).trials
    assert base.user_attrs["outcome"] == "done" and base.params["train.lr"] == 0.01
    assert hopeless.user_attrs["outcome"] == "pruned" and len(hopeless.intermediate_values) == 4
    seeds = [base.user_attrs["run"], *(f"{base.user_attrs['run']}-seed-{seed}" for seed in range(1, 5))]
    ends = [last_line(tmp_path, name)["bits_per_byte"] for name in seeds]
    assert len(set(ends)) == 5 and base.value == pytest.approx(sum(ends) / 5)
    assert len(trained(tmp_path)) == 5 + 4


# ---- what goes wrong ----


def test_a_trial_that_outgrows_its_prediction_dies_alone(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 32]})
    status, _, errors = finish(start(tmp_path, trials=2, jobs=2, sampler="grid", fresh=True,
                                     ram_limit=room(680, processes=2, fresh=True), trainer="searching_parts:greedy"))
    assert (status, errors) == (0, "")
    by_dim = {trial.params["model.dim"]: trial for trial in study(tmp_path).trials}
    assert by_dim[16].user_attrs["outcome"] == "done"
    assert by_dim[32].user_attrs["outcome"] == "out of memory" and by_dim[32].state == TrialState.FAIL
    granted = SPARE_RATIO * by_dim[32].user_attrs["predicted_high_bytes"] + SPARE_BYTES
    assert by_dim[32].user_attrs["peak_bytes"] < granted + 60 * MB  # far from the 1500 that it wanted


def test_a_crash_is_told_with_its_reason(eventful):
    by_dim = {trial.params["model.dim"]: trial.user_attrs for trial in eventful.trials}
    assert by_dim[16]["outcome"] == "done" and by_dim[32]["outcome"] == "crashed"
    assert by_dim[32]["reason"] == "exit status 1: RuntimeError: nobody expected this"


def test_the_death_of_the_predictor_costs_one_trial(eventful):
    by_dim = {trial.params["model.dim"]: trial.user_attrs for trial in eventful.trials}
    assert [by_dim[dim]["outcome"] for dim in (16, 24, 64)] == ["done", "done", "crashed"]


def test_a_trial_that_is_killed_or_that_another_process_has_failed_is_trained_again(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24]})
    search = start(tmp_path, trials=2, jobs=2, sampler="grid", ram_limit=room(1540, processes=2),
                   trainer="searching_parts:endless_once")
    killed, failed = (wait_for(tmp_path, lambda _, mark=tmp_path / f"pid-{dim}": int(mark.read_text() or 0))
                      for dim in (16, 24))
    os.kill(killed, signal.SIGKILL)
    found = study(tmp_path)
    (trial,) = (trial for trial in found.trials if trial.params["model.dim"] == 24)
    found._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert finish(search) == (0, "", "") and wait_for(tmp_path, lambda _: not Path(f"/proc/{failed}").exists())
    found = study(tmp_path)
    assert outcomes(found)[2:] == ["done", "done"] and [trial.state.name for trial in found.trials[:2]] == 2 * ["FAIL"]
    assert next(trial for trial in found.trials if trial.params["model.dim"] == 16).user_attrs["outcome"] == "lost"
    assert {trial.params["model.dim"] for trial in found.trials[2:]} == {16, 24}
    assert trained(tmp_path) == ["toy-0002", "toy-0003"]


# ---- the search itself is killed ----


def predicting_after_one_is_done(found) -> bool:
    return {TrialState.COMPLETE, TrialState.RUNNING} <= {trial.state for trial in found.trials}


def training_32(found) -> bool:
    return any(trial.state == TrialState.RUNNING and "run" in trial.user_attrs and trial.params["model.dim"] == 32
               for trial in found.trials)


def test_a_search_killed_and_stopped_again_and_again_goes_on_and_nothing_is_lost_or_done_twice(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24, 32]})
    options = {"trials": 3, "sampler": "grid", "predictor": "searching_parts:slow", "pruner": "none"}
    before = {}
    for moment, number, status in ((predicting_after_one_is_done, signal.SIGKILL, -9),
                                   (training_32, signal.SIGINT, 130), (training_32, signal.SIGTERM, 143)):
        search = start(tmp_path, trainer="searching_parts:endless", **options)
        wait_for(tmp_path, moment)
        assert len(live_processes(tmp_path)) > 1  # the search, and those that it has started
        search.send_signal(number)
        assert finish(search)[0] == status
        before |= {trial.number: trial.values for trial in study(tmp_path).trials
                   if trial.state == TrialState.COMPLETE}
        if number != signal.SIGKILL:
            assert "lost" in outcomes(study(tmp_path)) and not live_processes(tmp_path)
            assert len(trained(tmp_path)) == len(before)  # of the trials that are done
    assert 0 < len(before) < 3
    assert finish(start(tmp_path, **options)) == (0, "", "")
    found = study(tmp_path)
    done = [trial for trial in found.trials if trial.user_attrs["outcome"] == "done"]
    assert {trial.number: trial.values for trial in done}.items() >= before.items()
    assert sorted(trial.params["model.dim"] for trial in done) == [16, 24, 32]
    assert not [trial for trial in found.trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert not live_processes(tmp_path)
    assert trained(tmp_path) == [trial.user_attrs["run"] for trial in done]  # nothing of those that were lost
