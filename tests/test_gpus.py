"""Processes side by side get a GPU each; those that share one share its memory, and without GPUs nothing is changed."""

import time
from pathlib import Path

import optuna
import pytest
import torch
from searching_parts import MB, finish, start, study, write_space
from small_runs import small_run_config

from config import Config
from experiments.processes import gpus
from experiments.processes.children import Child, Children, Task, last_line
from experiments.processes.gpus import AS_IT_IS, least_loaded, memory_bytes, visible_gpus
from experiments.processes.training_runs import training
from experiments.processes.worker import wait_for_answers
from experiments.searching.jobs import Job
from experiments.searching.options import Options
from experiments.searching.predicting import Predictor
from experiments.searching.shared import limit_with_room
from experiments.searching.trainer import Trainer

OPTIONS = Options(space=Path("toy.yaml"), study="toy")


@pytest.fixture
def have(monkeypatch):
    """Have so many GPUs, as torch and the environment tell."""
    def have(count: int, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv(gpus.VISIBLE, raising=False)
        if visible is not None:
            monkeypatch.setenv(gpus.VISIBLE, visible)

    return have


@pytest.mark.parametrize(("count", "visible", "device", "expected"), [
    (0, None, "auto", (AS_IT_IS,)),
    (0, "", "auto", (AS_IT_IS,)),  # hides all GPUs
    (3, None, "auto", ("0", "1", "2")),
    (2, "5,3", "cuda", ("5", "3")),
    (2, " GPU-8ae2, GPU-77b0 ", "auto", ("GPU-8ae2", "GPU-77b0")),
    (1, "4,-1,5", "auto", ("4",)),  # what stands after a number that is no GPU does not count
    (3, None, "cpu", (AS_IT_IS,)),
    (3, None, "cuda:1", (AS_IT_IS,)),  # which one is said
])
def test_a_process_may_see_one_of_the_gpus_that_this_one_sees(have, count, visible, device, expected):
    have(count, visible)
    assert visible_gpus(device) == expected


@pytest.mark.parametrize(("held", "needed", "expected"), [
    ({"0": [], "1": []}, 9, "0"),
    ({"0": [1], "1": []}, 9, "1"),
    ({"0": [1, 1], "1": [5]}, 5, "1"),  # the fewest processes
    ({"0": [1, 1], "1": [6]}, 5, "0"),  # the other has no room
    ({"0": [5], "1": [4]}, 1, "1"),
    ({"0": [8], "1": [8]}, 5, None),
    ({"": [4, 4]}, 2, ""),
    ({"": [4, 4]}, 3, None),
])
def test_a_process_goes_to_the_gpu_of_the_fewest_processes_that_has_room(held, needed, expected):
    assert least_loaded(held, needed, 10) == expected


def seen(children: Children, folder: Path, gpus: tuple[str, ...], count: int) -> list[str]:
    """What processes that run at once see of CUDA_VISIBLE_DEVICES."""
    logs = [folder / f"{number}.txt" for number in range(count)]
    for log in logs:
        children.begin(Task(log.stem, "child_calls:tell_gpus", (), log, gpus=gpus))
    until = time.monotonic() + 100
    while not all(map(last_line, logs)):
        assert time.monotonic() < until, "they never spoke"
        wait_for_answers([children.server], 0.1)
        children.ended()
    return [last_line(log).removeprefix("sees").strip() for log in logs]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "visible", "expected"), [
    (2, None, ["0", "1", "0", "1"]), (2, "GPU-b,GPU-a", ["GPU-b", "GPU-a", "GPU-b", "GPU-a"]), (0, None, 4 * ["None"]),
    (0, "", ["", "", "", ""])])
def test_children_share_the_gpus_evenly(have, tmp_path, monkeypatch, count, visible, expected):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    have(count, visible)
    children = Children(tmp_path / "fork_server.txt", threads=1, modules=("child_calls",))
    try:
        assert seen(children, tmp_path, visible_gpus("auto"), 4) == expected
    finally:
        children.close()


def test_each_run_of_an_experiment_may_have_any_gpu_unless_its_flag_names_one(have, models, tmp_path):
    have(2)
    for device, expected in (("auto", ("0", "1")), ("cpu", (AS_IT_IS,)), ("cuda:1", (AS_IT_IS,))):
        cfg = small_run_config(tmp_path, {"train.device": device, "train.name": "toy"})
        assert training(cfg, tmp_path).gpus == expected


# ---- a search ----


def jobs_of(*needed: int) -> list[Job]:
    """Trials that wait to be trained, each granted so many bytes."""
    found = optuna.create_study(study_name="toy")
    prediction = {"shrunk": {}, "allocator": "fast", "steps": 2, "low_bytes": 1}
    return [Job(found.ask(), {}, Config(), [0], "waiting", prediction=prediction, granted_bytes=each)
            for each in needed]


def begun(trainer: Trainer, jobs: list[Job], limit: int) -> dict[int, str]:
    """Start the trials for which there is room: trial -> the GPU that it sees."""
    trainer.start_waiting(jobs, limit)
    return {job.number: job.child.gpu for job in jobs if job.child}


@pytest.fixture
def trainer(have, tmp_path, monkeypatch):
    """The trainer of a search that starts no processes."""
    have(2)
    monkeypatch.setattr(Children, "begin", lambda self, task: Child(task, task.gpus[0]))
    return Trainer(OPTIONS, Config(), "train:main", tmp_path)


def test_trials_on_one_gpu_share_its_memory(trainer):
    jobs = jobs_of(600 * MB, 500 * MB, 450 * MB, 450 * MB, 100 * MB)
    assert begun(trainer, jobs, 1000 * MB) == {0: "0", 1: "1", 2: "1"}  # then there is no room for the fourth
    jobs[0].child = None
    assert begun(trainer, jobs, 1000 * MB) == {1: "1", 2: "1", 3: "0", 4: "0"}


def test_on_a_gpu_torch_holds_a_trial_to_its_limit_and_it_says_what_it_took(trainer, monkeypatch, models):
    jobs = jobs_of(600 * MB, 600 * MB)
    monkeypatch.setattr(trainer, "_is_on_gpu", True)
    begun(trainer, jobs, 1000 * MB)
    assert jobs[0].child.task.limit_bytes is None and jobs[0].cfg.train.memory_limit == "600MB"
    (models / "toy-0000").mkdir(parents=True)
    (models / "toy-0000" / "memory.json").write_text('{"peak_bytes": 7}')
    child, child.peak_bytes = jobs[0].child, 9
    jobs[0].ended(child, on_gpu=True)
    jobs[1].ended(child)
    assert [job.peak_bytes for job in jobs] == [7, 9]


def test_the_memory_of_gpus_is_that_of_the_smallest(have, monkeypatch):
    have(2)
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda number: type("Properties", (), {"total_memory": [80, 24][number] * 10**9}))
    assert memory_bytes(torch.device("cuda")) == 24 * 10**9 and memory_bytes(torch.device("cuda:0")) == 80 * 10**9
    assert limit_with_room(OPTIONS, 0, torch.device("cuda")) == 0.9 * 24 * 10**9


def test_what_a_trial_takes_on_a_gpu_is_predicted_without_what_its_process_holds(monkeypatch):
    monkeypatch.setattr("experiments.searching.predicting.pick_device", lambda name: torch.device(name))
    found = {}
    for device in ("cpu", "cuda"):
        predictor = Predictor(lambda cfg, *, device: type("Predicted", (), {"low_bytes": 5, "high_bytes": 6}))
        predictor._settled = lambda cfg: cfg
        found[device] = predictor.answer({"model": {"vocab_size": 16}, "train": {"device": device}}, 10**12)
    assert found["cuda"]["low_bytes"] == 5 and found["cuda"]["baseline_bytes"] == 0
    assert found["cpu"]["low_bytes"] - found["cpu"]["baseline_bytes"] == 5 and found["cpu"]["baseline_bytes"] > 50 * MB


@pytest.mark.slow
def test_trials_of_a_search_see_a_gpu_each(have, tmp_path):
    have(2)
    write_space(tmp_path, {"model.dim": [16, 24, 32]})
    assert finish(start(tmp_path, trials=3, jobs=3, sampler="grid", pruner="none",
                        trainer="searching_parts:telling")) == (0, "", "")
    saw = {path.read_text() for path in tmp_path.glob("sees-*")}
    assert saw == {"0", "1"} and len(study(tmp_path).trials) == 3
