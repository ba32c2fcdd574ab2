"""A search trains nothing that would not fit, outlives its trials and its own death, and does nothing twice."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from searching_parts import MB, QUICK, finish, outcomes, room, start, study, wait_for, write_space
from small_runs import small_run_config

from config import load_config, save_config
from experiments.searching.report import write_report
from memory_prediction.baseline import child_baseline_bytes
from run_store.listing import read_config

pytestmark = pytest.mark.slow


def trained(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "models").glob("toy-*"))


def live_processes(folder: Path) -> list[str]:
    """The command lines of processes that work for the folder's search."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:
            continue
        if f"SHAPESHIFTER_MODELS={folder}".encode() in environment:
            lines.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return lines


@pytest.fixture(scope="module")
def eventful(tmp_path_factory):
    """A study of several objectives: 16 and 24 wide are trained, 32 crashes, and 64 kills the process that predicts."""
    folder = tmp_path_factory.mktemp("eventful")
    write_space(folder, {"model.dim": [16, 24, 32, 64]})
    objectives = ["bits_per_byte", "parameters", "peak_bytes"]
    assert finish(start(folder, trials=4, sampler="grid", objective=objectives, trainer="searching_parts:raising",
                        predictor="searching_parts:killing"))[0] == 0
    return study(folder)


# ---- what is trained ----


def test_what_fits_is_a_saved_run_and_what_does_not_never_starts(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24, 28, 64, 128], "train.lr": {"float": [1e-3, 1e-1]}})
    assert finish(start(tmp_path, trials=5, jobs=2)) == (0, "", "")
    found = study(tmp_path)
    counts = Counter(outcomes(found))
    assert counts["done"] + counts["pruned"] == 5 and set(counts) <= {"done", "pruned", "oversized", "invalid"}
    limit = found.user_attrs["limit_bytes"]
    for trial in found.trials:
        attributes = trial.user_attrs
        match attributes["outcome"]:
            case "done" | "pruned":
                assert attributes["run"] == f"toy-{trial.number:04d}" and attributes["predicted_low_bytes"] <= limit
                assert 0 < attributes["peak_bytes"] <= limit and attributes["parameters"] > 0
            case "oversized":
                assert attributes["predicted_low_bytes"] > limit and "run" not in attributes
            case "invalid":
                assert trial.params["model.dim"] == 28 and "predicted_low_bytes" not in attributes
    assert trained(tmp_path) == [trial.user_attrs["run"] for trial in found.trials if "run" in trial.user_attrs]
    done = next(trial for trial in found.trials if trial.user_attrs["outcome"] == "done")
    config = json.loads((tmp_path / "models" / done.user_attrs["run"] / "config.json").read_text())
    assert config["model"]["dim"] == done.params["model.dim"] and config["train"]["lr"] == done.params["train.lr"]
    last = (tmp_path / "models" / done.user_attrs["run"] / "log.csv").read_text().splitlines()
    assert done.value == float(last[-1].split(",")[last[0].split(",").index("bits_per_byte")])
    assert not live_processes(tmp_path)


def test_asked_to_a_search_shrinks_before_it_skips(tmp_path):
    write_space(tmp_path, {"model.dim": [32], "train.batch_size": [4]})
    assert finish(start(tmp_path, trials=1, on_exceed="shrink", predictor="searching_parts:by_batch"))[0] == 0
    (trial,) = study(tmp_path).trials
    assert trial.user_attrs["outcome"] == "done"
    assert trial.user_attrs["shrunk"] == {"train.batch_size": 1, "train.accumulation": 4}
    config = json.loads((tmp_path / "models" / "toy-0000" / "config.json").read_text())
    assert (config["train"]["batch_size"], config["train"]["accumulation"]) == (1, 4)


def test_where_nothing_fits_the_search_says_so(tmp_path):
    write_space(tmp_path, {"model.dim": [128, 256], "train.lr": {"float": [1e-3, 1e-1]}})
    status, _, errors = finish(start(tmp_path))
    assert status == 1 and "200 configurations in a row were not to be trained" in errors
    assert outcomes(study(tmp_path)) == 200 * ["oversized"] and not trained(tmp_path)


def test_a_limit_below_an_idle_process_is_refused(tmp_path):
    write_space(tmp_path)
    status, _, errors = finish(start(tmp_path, ram_limit="10MB"))
    assert status == 1 and "ram_limit=10MB has no room for any trial: a process holds " in errors


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


def test_the_best_are_repeated_over_further_seeds(tmp_path):
    write_space(tmp_path)
    finish(start(tmp_path, trials=3, jobs=2, repeat_best=1, repeat_seeds=2, pruner="none"))
    found = study(tmp_path)
    first = [trial for trial in found.trials if "repeat_of" not in trial.user_attrs]
    again = [trial for trial in found.trials if "repeat_of" in trial.user_attrs]
    best = min(first, key=lambda trial: trial.value)
    assert len(first) == 3 and len(again) == 2
    assert {trial.user_attrs["repeat_of"] for trial in again} == {best.number}
    assert {trial.user_attrs["seed"] for trial in again} == {1, 2} and best.user_attrs["seed"] == 0
    assert all(trial.params == best.params for trial in again)


def test_several_objectives_give_a_front(eventful):
    by_dim = {trial.params["model.dim"]: trial for trial in eventful.trials if trial.values}
    assert [by_dim[dim].values[1] for dim in (16, 24)] == [
        by_dim[dim].user_attrs["parameters"] for dim in (16, 24)] == sorted(by_dim[dim].values[1] for dim in (16, 24))
    assert all(trial.values[2] == trial.user_attrs["peak_bytes"] for trial in by_dim.values())
    assert by_dim[16] in eventful.best_trials


def test_trials_of_equal_time_have_as_many_steps_as_fit(tmp_path):
    write_space(tmp_path, {"model.dim": [64], "train.batch_size": [4, 256]})
    assert finish(start(tmp_path, trials=2, sampler="grid", trial_seconds=1.5, ram_limit=room(1540),
                        pruner="none"))[0] == 0
    steps = {}
    for trial in study(tmp_path).trials:
        run = tmp_path / "models" / trial.user_attrs["run"]
        taken = int((run / "log.csv").read_text().splitlines()[-1].split(",")[0])
        assert taken == json.loads((run / "config.json").read_text())["train"]["steps"]
        steps[trial.params["train.batch_size"]] = taken
    assert steps[4] > 1.5 * steps[256]


def test_a_trial_over_seeds_is_their_mean_and_the_search_goes_on_with_its_own_space_only(tmp_path):
    write_space(tmp_path, {"model.dim": [16]})
    assert finish(start(tmp_path, trials=1, sampler="grid", seeds=2))[0] == 0
    (trial,) = study(tmp_path).trials
    ends = []
    for name in (trial.user_attrs["run"], f"{trial.user_attrs['run']}-seed-1"):
        head, *lines = (tmp_path / "models" / name / "log.csv").read_text().splitlines()
        ends.append(float(lines[-1].split(",")[head.split(",").index("bits_per_byte")]))
    assert ends[0] != ends[1] and trial.value == pytest.approx(sum(ends) / 2)
    write_space(tmp_path, {"model.dim": [24]})
    status, _, errors = finish(start(tmp_path, trials=2, sampler="grid", seeds=2))
    assert status == 1 and "study=toy was begun with another space: choose another --study" in errors


def test_wilcoxon_spares_a_hopeless_trial_its_last_seeds(tmp_path):
    write_space(tmp_path, {"train.lr": [0.01, 1e-7]})
    assert finish(start(tmp_path, trials=2, sampler="grid", pruner="wilcoxon", seeds=6))[0] == 0
    base, hopeless = study(tmp_path).trials
    assert base.user_attrs["outcome"] == "done" and base.params["train.lr"] == 0.01
    assert hopeless.user_attrs["outcome"] == "pruned" and len(hopeless.intermediate_values) == 4
    assert len(list((tmp_path / "models").glob("toy-*"))) == 6 + 4


# ---- what goes wrong ----


def test_a_trial_that_outgrows_its_prediction_dies_alone(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 32]})
    status, _, errors = finish(start(tmp_path, trials=2, jobs=2, sampler="grid", ram_limit=room(680, processes=2),
                                     trainer="searching_parts:greedy"))
    assert (status, errors) == (0, "")
    by_dim = {trial.params["model.dim"]: trial for trial in study(tmp_path).trials}
    assert by_dim[16].user_attrs["outcome"] == "done"
    assert by_dim[32].user_attrs["outcome"] == "out of memory" and by_dim[32].state == TrialState.FAIL
    assert by_dim[32].user_attrs["peak_bytes"] < child_baseline_bytes() + 840 * MB  # far from the 1500 that it wanted


def test_a_crash_is_told_with_its_reason(eventful):
    by_dim = {trial.params["model.dim"]: trial.user_attrs for trial in eventful.trials}
    assert by_dim[16]["outcome"] == "done" and by_dim[32]["outcome"] == "crashed"
    assert by_dim[32]["reason"] == "exit status 1: RuntimeError: nobody expected this"


def test_the_death_of_the_predictor_costs_one_trial(eventful):
    by_dim = {trial.params["model.dim"]: trial.user_attrs for trial in eventful.trials}
    assert [by_dim[dim]["outcome"] for dim in (16, 24, 64)] == ["done", "done", "crashed"]


def test_a_trial_killed_from_outside_is_trained_again(tmp_path):
    write_space(tmp_path, {"model.dim": [32]})
    search = start(tmp_path, trials=1, sampler="grid", trainer="searching_parts:endless_once")
    pid = wait_for(tmp_path, lambda _: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    os.kill(pid, signal.SIGKILL)
    assert finish(search)[0] == 0
    assert outcomes(study(tmp_path)) == ["lost", "done"]
    assert trained(tmp_path) == ["toy-0001"]


def test_a_trial_that_another_process_has_failed_is_killed_and_trained_again(tmp_path):
    write_space(tmp_path, {"model.dim": [32]})
    search = start(tmp_path, trials=1, sampler="grid", trainer="searching_parts:endless_once")
    pid = wait_for(tmp_path, lambda _: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    found = study(tmp_path)
    found._storage.set_trial_state_values(found.trials[0]._trial_id, TrialState.FAIL)
    assert finish(search) == (0, "", "") and wait_for(tmp_path, lambda _: not Path(f"/proc/{pid}").exists())
    assert [trial.state for trial in study(tmp_path).trials] == [TrialState.FAIL, TrialState.COMPLETE]


# ---- the search itself is killed ----


def running(found) -> bool:
    return any(trial.state == TrialState.RUNNING and "run" in trial.user_attrs for trial in found.trials)


def predicting(found) -> bool:
    return any(trial.state == TrialState.RUNNING and trial.params and "run" not in trial.user_attrs
               for trial in found.trials)


def between(found) -> bool:
    return any(trial.state == TrialState.COMPLETE for trial in found.trials)


def test_a_search_killed_again_and_again_goes_on_and_nothing_is_lost_or_done_twice(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 24], "train.lr": [0.01, 0.02]})
    options = {"trials": 4, "sampler": "grid", "predictor": "searching_parts:slow", "pruner": "none"}
    before = {}
    for moment in (predicting, between):  # while one is trained: see the next test
        search = start(tmp_path, **options)
        wait_for(tmp_path, moment)
        search.kill()
        search.wait()
        before |= {trial.number: trial.values for trial in study(tmp_path).trials
                   if trial.state == TrialState.COMPLETE}
    assert 0 < len(before) < 4
    assert finish(start(tmp_path, **options)) == (0, "", "")
    found = study(tmp_path)
    done = [trial for trial in found.trials if trial.user_attrs["outcome"] == "done"]
    assert {trial.number: trial.values for trial in done}.items() >= before.items()
    params = Counter(json.dumps(trial.params, sort_keys=True) for trial in done)
    assert len(params) == 4 and set(params.values()) == {1}
    assert not [trial for trial in found.trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert not live_processes(tmp_path)
    assert trained(tmp_path) == [trial.user_attrs["run"] for trial in done]  # nothing of those that were lost


def test_a_stopped_search_keeps_what_is_done_and_goes_on(tmp_path):
    write_space(tmp_path, {"model.dim": [16, 32]})
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        search = start(tmp_path, trials=2, sampler="grid", trainer="searching_parts:endless")
        wait_for(tmp_path, lambda found: running(found) and found.trials[-1].params.get("model.dim") == 32)
        search.send_signal(number)
        assert finish(search)[0] == status
        assert "lost" in outcomes(study(tmp_path)) and not live_processes(tmp_path)
        assert len(trained(tmp_path)) <= 1  # of the trial that is done
    assert finish(start(tmp_path, trials=2, sampler="grid"))[0] == 0
    done = [trial.params["model.dim"] for trial in study(tmp_path).trials if trial.user_attrs["outcome"] == "done"]
    assert sorted(done) == [16, 32]


@pytest.mark.parametrize("length", [{"train.tokens": 160}, {"train.epochs": 0.5}])
def test_a_base_may_say_how_long_it_trains_in_any_way(tmp_path, length):
    save_config(small_run_config(tmp_path, QUICK | length), tmp_path / "base.json")
    (tmp_path / "toy.yaml").write_text(f"base: {tmp_path}/base.json\nsearch: {{train.batch_size: [2, 4]}}\n")
    assert finish(start(tmp_path, trials=2, sampler="grid", predictor="memory:predict", ram_limit=None,
                        pruner="none")) == (0, "", "")
    report = write_report(study(tmp_path), tmp_path / "report")
    for trial, path in zip(report.best, report.configs, strict=True):
        cfg = read_config(tmp_path / "models" / trial.user_attrs["run"])
        tokens = cfg.train.steps * cfg.train.batch_size * cfg.model.max_seq_len
        assert (cfg.train.tokens, cfg.train.epochs) == (None, None)
        assert "train.tokens" not in length or abs(tokens - 160) <= cfg.train.batch_size * cfg.model.max_seq_len / 2
        assert load_config(path).train.steps == cfg.train.steps
