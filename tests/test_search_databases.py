"""Several searches share one study through a database."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from programs import Program
from searching_parts import finish, room, start, write_space
from sqlalchemy.engine import make_url

from experiments.searching.claims import Heartbeats
from experiments.searching.outcomes import outcome

pytestmark = pytest.mark.slow
PROGRAMS = Path(max(glob.glob("/usr/lib/postgresql/*/bin"), default="/nowhere"))  # where Debian puts them


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def postgresql():
    """The URL of a server of its own, which ends with the test."""
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    as_user = []
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which another user cannot enter
    if os.geteuid() == 0:  # the server refuses root
        if "postgres" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("the server refuses root, and there is no user postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres")
    port = free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def call(program: str, *words: str) -> None:
        subprocess.run([*as_user, str(PROGRAMS / program), "-D", str(folder / "data"), *words], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        call("initdb", "-A", "trust", "-U", "tester", "--no-sync")
        call("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start")
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
        call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def test_two_searches_on_one_database_share_the_trials(tmp_path, request):
    url = request.getfixturevalue("postgresql" if (PROGRAMS / "initdb").exists() else "sqlite")
    write_space(tmp_path)
    limit = room(1540)
    both = [start(tmp_path, trials=6, storage=url, pruner="none", ram_limit=limit) for _ in range(2)]
    ends = [finish(search) for search in both]
    assert [errors[-3000:] for *_, errors in ends] == ["", ""]
    assert [status for status, *_ in ends] == [0, 0]
    study = optuna.load_study(study_name="toy", storage=url)
    trials = [trial for trial in study.trials if "twice" not in trial.user_attrs]  # the last one, begun by each
    assert [trial.user_attrs["outcome"] for trial in trials] == 6 * ["done"]
    assert len({trial.user_attrs["worker"]["pid"] for trial in trials}) == 2
    assert len({tuple(trial.params.values()) for trial in trials}) == 6
    runs = [trial.user_attrs["run"] for trial in trials]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == sorted(runs)


@pytest.mark.thorough
def test_four_searches_on_one_server_train_all_once_though_one_is_killed(tmp_path, postgresql, monkeypatch):
    monkeypatch.setenv("GRACE_SECONDS", "10")
    write_space(tmp_path, {"model.dim": [32], "train.lr": [0.001, 0.002, 0.004, 0.008, 0.016, 0.032]})
    options = {"trials": 6, "sampler": "grid", "pruner": "none", "storage": postgresql, "ram_limit": room(1540)}
    killed = start(tmp_path, trainer="searching_parts:endless", **options)
    until = time.monotonic() + 100
    while not list(tmp_path.glob("results/toy/logs/toy-0000.config.json")):  # its first trial is in training
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    others = [start(tmp_path, **options) for _ in range(3)]
    while not list(tmp_path.glob("models/toy-*/loss.png")):
        assert time.monotonic() < until
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert [finish(search) for search in others] == 3 * [(0, "", "")]
    study = optuna.load_study(study_name="toy", storage=postgresql)
    # two that find the dead one at once queue its trial twice; the second is dropped, or waits for ever
    trials = [trial for trial in study.trials if outcome(trial) not in ("queued twice", "waiting")]
    assert [outcome(trial) for trial in trials].count("done") == 6
    (lost,) = (trial for trial in trials if outcome(trial) == "lost")
    (again,) = (trial for trial in trials if trial.system_attrs.get("retry_history") == [lost.number])
    assert (lost.number, lost.user_attrs["worker"]["pid"]) == (0, killed.pid)
    assert again.params == lost.params and again.user_attrs["worker"]["pid"] != killed.pid
    done = [trial for trial in trials if outcome(trial) == "done"]
    assert len({trial.params["train.lr"] for trial in done}) == 6
    assert len({trial.user_attrs["worker"]["pid"] for trial in done}) > 1
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [trial.user_attrs["run"] for trial in done]


@pytest.mark.thorough
def test_a_search_on_a_database_trains_what_a_killed_one_left(tmp_path, sqlite, monkeypatch):
    monkeypatch.setenv("GRACE_SECONDS", "4")
    write_space(tmp_path, {"model.dim": [16, 24]})
    options = {"trials": 2, "sampler": "grid", "storage": sqlite, "predictor": "searching_parts:slow"}
    search = start(tmp_path, **options)
    while not list(tmp_path.glob("results/toy/logs/toy-0000.config.json")):
        assert search.poll() is None
        time.sleep(0.02)
    search.kill()
    search.wait()
    assert finish(start(tmp_path, **options)) == (0, "", "")
    trials = optuna.load_study(study_name="toy", storage=sqlite).trials
    assert [outcome(trial) for trial in trials] == ["lost", "done", "done"]
    assert sorted(trial.params["model.dim"] for trial in trials[1:]) == [16, 24]
    assert trials[2].params == trials[0].params


def test_no_waiting_trial_of_a_sqlite_study_is_given_to_two(sqlite):
    def fill() -> None:
        study = optuna.create_study(storage=sqlite, study_name="toy")
        for number in range(40):
            study.enqueue_trial({"x": number})

    def take() -> None:
        claims = Heartbeats(optuna.load_study(study_name="toy", storage=sqlite), make_url(sqlite))
        print(*(claims.ask().number for _ in range(10)))

    assert finish(Program(fill, {}))[0] == 0  # a process of its own: no connection is forked
    takers = [Program(take, {}) for _ in range(4)]
    taken = [int(number) for taker in takers for number in finish(taker)[1].split()]
    assert sorted(taken) == list(range(40))
