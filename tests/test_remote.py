"""Rented machines: the files say what SkyPilot knows, and what they run goes on wherever it was killed."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from fsspec.implementations.local import LocalFileSystem
from searching_parts import write_space
from small_runs import small_run_config
from thorough import further

from config import save_config
from experiments.remote import synced
from experiments.remote.synced import Bucket, Kept, run
from experiments.searching.outcomes import outcome
from run_store.atomic_files import CHECKPOINT, SUMS, find_damage, sha256
from run_store.listing import step_folders

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments" / "remote"
FILES = {path.name.split(".")[0]: path for path in FOLDER.glob("*.sky.yaml")}
SBATCH = FOLDER / "slurm" / "train.sbatch"
KNOWN = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "setup", "run"}
KNOWN_RESOURCES = {"infra", "accelerators", "cpus", "memory", "instance_type", "use_spot", "disk_size", "image_id",
                   "ports", "autostop", "any_of", "ordered", "max_hourly_cost", "job_recovery"}
NODE = {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "127.0.0.1", "SKYPILOT_NUM_NODES": "1"}
PYTHON_OF_SKY = "SHAPESHIFTER_SKY_PYTHON"  # an interpreter that has SkyPilot, which needs an environment of its own


def task(name: str) -> dict:
    return yaml.safe_load(FILES[name].read_text(encoding="utf-8"))


# ---- the files ----


def test_there_is_a_file_for_a_gpu_a_node_and_a_search():
    assert FILES.keys() == {"train", "node", "search"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_keys_of_skypilot_and_the_variables_that_it_reads(name):
    found = task(name)
    assert found.keys() <= KNOWN and found["resources"].keys() <= KNOWN_RESOURCES
    known = {*found["envs"], *found.get("secrets", {}), *NODE, "SKYPILOT_NUM_GPUS_PER_NODE"}
    assert {*re.findall(r"\$\{?(\w+)", found["run"] + found["setup"])} <= known
    assert len(found["run"].strip().splitlines()) == 1
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n", "-c", found[part]], check=True)


def test_skypilot_reads_the_files():
    if not (python := os.environ.get(PYTHON_OF_SKY)):
        pytest.skip(f"{PYTHON_OF_SKY} names no interpreter that has SkyPilot: see docs/remote.md")
    code = ("import json, sys, sky, yaml\n"
            "for path in sys.argv[1:]:\n"
            "    read = yaml.safe_load(open(path))\n"
            "    given = [[(name, 'x') for name, value in read.get(part, {}).items() if value is None]\n"
            "             for part in ('envs', 'secrets')]\n"
            "    found = sky.Task.from_yaml_config(read, *given)\n"
            "    print(json.dumps([found.num_nodes, [each.use_spot for each in found.resources]]))\n")
    done = subprocess.run([python, "-c", code, *map(str, FILES.values())], capture_output=True, text=True,
                          env=os.environ | {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"})
    assert done.returncode == 0, done.stderr
    found = dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=True))
    assert [found[name][0] for name in ("train", "node", "search")] == [1, 1, 4]
    assert all(spot for _, spots in found.values() for spot in spots)


def test_the_batch_file_of_slurm_names_its_run_and_is_put_back_into_the_queue():
    subprocess.run(["bash", "-n", SBATCH], check=True)
    text = SBATCH.read_text(encoding="utf-8")
    assert "#SBATCH --requeue\n" in text and "#SBATCH --signal=B:USR1@" in text
    done = subprocess.run(["bash", SBATCH], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode and "RUN: the name of the run" in done.stderr


STUBS = {
    "scontrol": 'if [[ $1 = show ]]; then echo here; else echo "scontrol $*" >> "$SAID"; fi',
    "scancel": 'echo "scancel $*" >> "$SAID"; kill -TERM "$(cat "$SAID.pid")"',
    "srun": 'echo "srun $*" >> "$SAID"; trap "exit $ENDS" TERM; echo $$ > "$SAID.pid"; sleep 20 & wait',
}


@pytest.mark.parametrize(("ends", "requeued"), [(1, True), (0, False)])
def test_before_its_time_limit_a_job_of_slurm_saves_and_is_put_back_unless_it_is_done(tmp_path, ends, requeued):
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    job = subprocess.Popen(["bash", SBATCH], env={
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said), "ENDS": str(ends), "RUN": "toy",
        "FLAGS": "tales --train.steps 5", "SLURM_JOB_ID": "77", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"})
    wait_until(lambda: (tmp_path / "said.pid").exists() and (tmp_path / "said.pid").read_text())
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == ends
    srun, *rest = said.read_text().splitlines()
    assert srun == ("srun .venv/bin/torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint "
                    "here:20077 --rdzv-id 77 train.py tales --train.steps 5 --resume-or-begin toy")
    assert rest == ["scancel --signal=TERM 77"] + ["scontrol requeue 77"] * requeued


def wait_until(sign) -> None:
    until = time.monotonic() + 100
    while not sign():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


# ---- a run and its copy ----


def write_checkpoint(run: Path, step: int, text: str = "") -> Path:
    """A checkpoint that is whole; the log has come to its step."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINT:
        (folder / name).write_text(f"{name} of step {step} {text}")
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in CHECKPOINT))
    (run / "log.csv").write_text("step\n" + "".join(f"{number}\n" for number in range(step + 1)))
    return folder


def write_run(models: Path, *steps: int) -> Path:
    """What a run's folder holds, without weights."""
    path = models / "toy"
    (path / "tokenizer").mkdir(parents=True)
    for name in ("data.json", "environment.json", "tokenizer/meta.json", "config.json"):
        (path / name).write_text("{}")
    for step in steps:
        write_checkpoint(path, step)
    return path


def drop(run: Path, step: int) -> None:
    shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")


def steps_of(run: Path) -> list[int]:
    return [int(folder.name[5:]) for folder in step_folders(run)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(bucket: Path, where: Path) -> Path | None:
    """The run as another machine gets it."""
    Kept(Bucket(str(bucket)), "toy", where).fetch()
    return where / "toy" if (where / "toy").exists() else None


def test_what_is_fetched_is_what_was_sent(tmp_path):
    path, bucket = write_run(tmp_path / "models", 5, 10), Bucket(str(tmp_path / "bucket"))
    (path / ".config.json.01234567.tmp").write_text("half")
    (path / "checkpoints" / ".step_00000015.01234567.tmp").mkdir()
    bucket.send(path)
    write_checkpoint(path, 15)
    drop(path, 5)
    (path / ".config.json.01234567.tmp").unlink()
    bucket.send(path)
    there = fetched(tmp_path / "bucket", tmp_path / "there")
    assert content(there) == content(path) == content(tmp_path / "bucket" / "toy")
    assert steps_of(there) == [10, 15]


class Cut(Exception):
    """The machine is gone."""


def cut_after(monkeypatch, number: int) -> None:
    """Let so many operations on the bucket happen, half of the next if it writes, and no other."""
    count = iter(range(number))

    def deadly(name: str):
        whole = getattr(LocalFileSystem, name)

        def act(self, *args, **kwargs):
            if next(count, None) is not None:
                return whole(self, *args, **kwargs)
            if name == "put_file":
                Path(args[1]).parent.mkdir(parents=True, exist_ok=True)
                Path(args[1]).write_bytes(Path(args[0]).read_bytes()[:7])
            raise Cut

        return act

    for name in ("put_file", "pipe_file", "mv", "rm_file", "rm"):
        monkeypatch.setattr(LocalFileSystem, name, deadly(name))


def test_wherever_the_sending_is_cut_what_is_fetched_is_a_run_that_can_go_on(tmp_path, monkeypatch):
    number, seen = 0, set()
    while True:
        place = tmp_path / str(number)
        path, bucket = write_run(place / "models", 5, 10), Bucket(str(place / "bucket"))
        bucket.send(path)
        write_checkpoint(path, 10, "again")
        write_checkpoint(path, 15)
        drop(path, 5)
        with monkeypatch.context() as patch:
            cut_after(patch, number)
            with suppress(Cut):
                bucket.send(path)
                break
        there = fetched(place / "bucket", place / "there")
        steps = steps_of(there)
        assert steps and not find_all_damage(there) and not list(there.rglob("*.part"))
        assert len((there / "log.csv").read_text().splitlines()) - 2 >= steps[-1]
        seen.add(tuple(steps))
        Bucket(str(place / "bucket")).send(path)
        assert content(fetched(place / "bucket", place / "after")) == content(path)
        number += 1
    assert number > 12 and {(5, 10), (5, 10, 15), (10, 15)} <= seen


def test_a_run_whose_first_sending_is_cut_is_no_run_or_one_that_begins(tmp_path, monkeypatch):
    number, seen = 0, set()
    while True:
        place = tmp_path / str(number)
        path, bucket = write_run(place / "models", 5), Bucket(str(place / "bucket"))
        with monkeypatch.context() as patch:
            cut_after(patch, number)
            with suppress(Cut):
                bucket.send(path)
                break
        there = fetched(place / "bucket", place / "there")
        if there is None:
            seen.add(None)
        else:
            assert content(there).keys() - content(path).keys() == set() and not find_all_damage(there)
            assert (there / "tokenizer" / "meta.json").read_text() == (there / "data.json").read_text() == "{}"
            seen.add(tuple(steps_of(there)))
        number += 1
    assert seen == {None, ()}


def find_all_damage(run: Path) -> list[str]:
    return [found for folder in step_folders(run) if (found := find_damage(folder))]


def test_a_run_that_is_here_is_not_fetched(tmp_path, capsys):
    path = write_run(tmp_path / "models", 5)
    Bucket(str(tmp_path / "bucket")).send(path)
    write_checkpoint(path, 10)
    before = content(path)
    fetched(tmp_path / "bucket", tmp_path / "models")
    assert content(path) == before and capsys.readouterr().out == "toy is here, and stays as it is\n"


def test_a_run_is_sent_when_it_has_a_new_checkpoint_and_only_then(tmp_path, monkeypatch):
    path, sent = write_run(tmp_path / "models"), []
    write_run(tmp_path / "other", 5).rename(tmp_path / "models" / "other")
    kept = Kept(Bucket(str(tmp_path / "bucket")), "toy*", tmp_path / "models")
    monkeypatch.setattr(Bucket, "send", lambda self, run: sent.append(run.name))
    for number, expected in ((0, 0), (5, 1), (0, 1), (10, 2), (0, 2)):
        if number:
            write_checkpoint(path, number)
        assert kept.send() and sent == expected * ["toy"]
    assert kept.send(all_of_it=True) and sent == 3 * ["toy"]


def test_a_bucket_that_cannot_be_opened_or_read_is_one_sentence(monkeypatch, call, tmp_path):
    assert call(synced.main, "nosuch://x", "toy") == (
        2, "", "error: bucket=nosuch://x cannot be opened: Protocol not known: nosuch\n")
    (tmp_path / "closed" / "toy").mkdir(parents=True)
    monkeypatch.setattr(LocalFileSystem, "glob", lambda *_: (_ for _ in ()).throw(RuntimeError("no  right")))
    assert call(synced.main, str(tmp_path / "closed"), "toy", "false") == (
        2, "", f"error: bucket={tmp_path}/closed cannot be read: no right\n")


# ---- a command ----


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The run toy and its bucket, with signals as they were at the end."""
    monkeypatch.setattr(synced, "SECONDS", 0.05)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Kept(Bucket(str(tmp_path / "bucket")), "toy", tmp_path / "models")
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_end_of_a_command_is_told_and_its_last_files_are_sent(kept, tmp_path):
    path = write_run(tmp_path / "models", 5)
    assert run(["true"], kept) == 0
    assert run(["bash", "-c", f"echo late > {path}/late.txt; exit 3"], kept) == 3
    assert content(tmp_path / "bucket" / "toy") == content(path)
    assert run(["bash", "-c", "kill -9 $$"], kept) == 137


def test_sigterm_reaches_the_command_and_is_told_whatever_that_says(kept, tmp_path):
    """torchrun, say, which ends with 1."""
    path = write_run(tmp_path / "models", 5)
    saved = write_checkpoint(path, 9).rename(tmp_path / "saved")
    stop = f"mv {saved} {path}/checkpoints/step_00000009; exit 1"
    script = f"trap '{stop}' TERM; kill -TERM $PPID; for _ in {{1..400}}; do sleep 0.05; done"
    assert run(["bash", "-c", script], kept) == 143
    assert steps_of(tmp_path / "bucket" / "toy") == [5, 9]


def test_what_could_not_be_sent_at_the_end_is_an_error(kept, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "models", 5)
    monkeypatch.setattr(Bucket, "send", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    assert run(["true"], kept) == 1
    assert capsys.readouterr().err == ("warning: toy could not be sent: no network\n"
                                       "error: what the command left is here and not in the bucket\n")


# ---- what the files run ----

TINY = {"train.name": None, "train.optimizer": "adamw", "train.steps": 40, "train.log_every": 1, "train.eval_every": 20,
        "train.checkpoint_every": 2, "train.sample_every": 40, "train.graded_stories": 0}


MORE = [("train", True), ("node", False), ("node", True)]


class Machine:
    """A machine with a disk of its own that executes what a file runs, and can be taken away at any moment."""

    def __init__(self, name: str, disk: Path, variables: dict[str, str]):
        line = task(name)["run"].replace(".venv/bin/", f"{sys.prefix}/bin/")
        self.models = disk / "models"
        self.process = psutil.Popen(["bash", "-c", line], cwd=ROOT, env=os.environ | NODE | variables | {
            "SHAPESHIFTER_MODELS": str(self.models), "SHAPESHIFTER_RESULTS": str(disk / "results"),
            "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def take_away(self) -> str:
        """SIGKILL to all of its processes at once; what they have said."""
        everything = [self.process, *self.process.children(recursive=True)]
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return self.process.communicate()[0]

    def end(self) -> tuple[int, str]:
        """(exit status, what it said) when it ends by itself."""
        said, _ = self.process.communicate(timeout=300)
        return self.process.returncode, said


def whole(bucket: Path) -> list[Path]:
    """The checkpoints of the run in a bucket that count."""
    return [folder for folder in step_folders(bucket / "toy") if (folder / SUMS).exists()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "same_disk"), [("train", False), *map(further, MORE)])
def test_what_is_run_goes_on_after_its_machine_is_taken_away(tmp_path, name, same_disk):
    bucket, config = tmp_path / "bucket", tmp_path / "config.json"
    save_config(small_run_config(tmp_path, TINY | {"train.steps": 10**6}), config)
    variables = {"RUN": "toy", "BUCKET": str(bucket), "FLAGS": f"--config {shlex.quote(str(config))}",
                 "SKYPILOT_NUM_GPUS_PER_NODE": "2"}
    first = Machine(name, tmp_path / "first", variables)
    try:
        wait_until(lambda: first.process.poll() is not None or whole(bucket))
    finally:
        said = first.take_away()
    assert whole(bucket), said
    here = step_folders(first.models / "toy") if same_disk else whole(bucket)
    newest = max(int(folder.name[5:]) for folder in here)
    steps = str(newest + 4)
    second = Machine(name, tmp_path / ("first" if same_disk else "second"),
                     variables | {"FLAGS": f"{variables['FLAGS']} --train.steps {steps}"})
    status, said = second.end()
    assert status == 0 and f"going on after step {newest}" in said, said
    assert content(second.models / "toy") == content(bucket / "toy") and f"step_{int(steps):08d}" in str(whole(bucket))


@pytest.mark.slow
@pytest.mark.thorough
def test_a_search_goes_on_after_its_machine_is_taken_away(tmp_path):
    bucket, database = tmp_path / "bucket", tmp_path / "study.db"
    space = write_space(tmp_path, changes={"train.steps": 60, "train.log_every": 10})
    variables = {"STUDY": "toy", "BUCKET": str(bucket), "STORAGE": f"sqlite:///{database}",
                 "FLAGS": f"--space {shlex.quote(str(space))} --trials 8 --pruner none",
                 "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    first = Machine("search", tmp_path / "first", variables)
    try:
        wait_until(lambda: first.process.poll() is not None or list(bucket.glob(f"toy-*/checkpoints/*/{SUMS}")))
    finally:
        said = first.take_away()
    sent = {path.name for path in bucket.iterdir()}
    assert sent, said
    with sqlite3.connect(database) as connection:  # it was long ago
        connection.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")
    second = Machine("search", tmp_path / "second", variables)
    status, said = second.end()
    assert status == 0, said
    study = optuna.load_study(study_name="toy", storage=variables["STORAGE"])
    outcomes = [outcome(trial) for trial in study.trials]
    assert outcomes.count("done") == 8 and 1 <= outcomes.count("lost") == len(outcomes) - 8
    own = {path.name for path in second.models.iterdir()}
    assert {path.name for path in bucket.iterdir()} == sent | own and not sent & own
    assert all(content(second.models / name) == content(bucket / name) for name in own)
