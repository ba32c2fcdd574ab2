"""Children of a fork server run side by side, and what ends one of them ends no other."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from experiments.processes.children import Child, Children, Task, last_line
from experiments.processes.worker import wait_for_answers

pytestmark = pytest.mark.slow


@pytest.fixture
def children(tmp_path, monkeypatch):
    """Children that can call the functions of child_calls.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    children = Children(tmp_path / "fork_server.txt", threads=1, modules=("child_calls",))
    yield children
    children.close()


def task(folder: Path, call: str, limit_bytes: int | None = None) -> Task:
    return Task(call, f"child_calls:{call}", (), folder / f"{call}.txt", limit_bytes)


def wait(children: Children, *waited: Child) -> None:
    until = time.monotonic() + 100
    while any(child.status is None for child in waited):
        assert time.monotonic() < until, "they never ended"
        wait_for_answers([children.server], 0.1)
        children.ended()


def test_each_child_has_its_own_status_and_log(children, tmp_path):
    speaks, fails = [children.begin(task(tmp_path, call)) for call in ("speak", "fail")]
    wait(children, speaks, fails)
    assert (speaks.status, fails.status) == (0, 1) and speaks.peak_bytes > 0
    assert last_line(tmp_path / "speak.txt") == "hello from a child"


def test_a_child_beyond_its_limit_is_killed_alone(children, tmp_path):
    grows, sleeps = children.begin(task(tmp_path, "grow", 500 * 10**6)), children.begin(task(tmp_path, "sleep"))
    wait(children, grows)
    assert (grows.status, grows.ended_by) == (-signal.SIGKILL, "watchdog")
    assert sleeps.status is None and sleeps.pid and Path(f"/proc/{sleeps.pid}").exists()


def is_running(pid: int) -> bool:
    """Whether a process lives; one that is dead may still wait for whoever adopted it."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_children_die_with_their_server_and_the_next_ones_get_another(children, tmp_path):
    sleeps = children.begin(task(tmp_path, "sleep"))
    while sleeps.pid is None:
        wait_for_answers([children.server], 0.1)
        children.ended()
    pid = sleeps.pid
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().split()[3]), signal.SIGKILL)  # its parent
    wait(children, sleeps)
    assert sleeps.status == -signal.SIGKILL
    speaks = children.begin(task(tmp_path, "speak"))
    wait(children, speaks)
    assert speaks.status == 0
    until = time.monotonic() + 100
    while is_running(pid):
        assert time.monotonic() < until, "it outlives its server"
        time.sleep(0.01)


def test_a_caller_that_gives_up_leaves_no_child_behind(children, tmp_path):
    tasks = [task(tmp_path, call) for call in ("fail", "speak", "sleep")]
    for _, status in children.run(tasks, jobs=3):
        if status:
            break  # the others have ended, or are told to
    assert children.begin(task(tmp_path, "speak")) in [*children._running.values()] and len(children._running) == 1
