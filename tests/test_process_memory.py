"""A process's memory: measured by the kernel, limited without a crash."""

import errno
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from thorough import some

from configuration import heap
from memory_prediction import process
from memory_prediction.baseline import warm_up
from memory_prediction.free_memory import free_bytes
from memory_prediction.process import (
    Watchdog,
    choose_allocator,
    data_bytes,
    is_out_of_memory,
    limit_growth,
    peak_rss_bytes,
    reset_peak_rss,
    rss_bytes,
)

MB = 2**20
ROOT = Path(__file__).resolve().parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def touch(num_bytes: int) -> mmap.mmap:
    """So much memory, held."""
    held = mmap.mmap(-1, num_bytes)
    for place in range(0, num_bytes, mmap.PAGESIZE):
        held[place] = 1
    return held


def python(code: str, environment: Mapping[str, str] = os.environ) -> list[int]:
    """Whole numbers that a fresh process prints; it must end well."""
    path = os.pathsep.join([f"{ROOT}/tests", *sys.path])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def wait_until(condition) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def sleeper():
    """A process that holds 80 MB, once it has said so."""
    code = "held = bytearray(b'x') * (80 << 20); print('ready', flush=True); input()"
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started.stdout.readline()
    yield started
    started.kill()
    started.communicate()


# ---- what a process holds ----


@linux
def test_resident_memory_follows_what_is_touched():
    before = rss_bytes()
    held = touch(64 * MB)
    assert 60 * MB < rss_bytes() - before < 80 * MB
    held.close()
    assert rss_bytes() - before < 8 * MB


@linux
def test_the_peak_outlives_the_memory_until_it_is_reset():
    before = rss_bytes()
    touch(64 * MB).close()
    assert peak_rss_bytes() - before > 60 * MB
    assert reset_peak_rss()
    assert peak_rss_bytes() - before < 8 * MB


@linux
def test_another_process_is_measured_as_itself(sleeper):
    held = touch(200 * MB)
    assert 80 * MB < rss_bytes(sleeper.pid) <= peak_rss_bytes(sleeper.pid) < 120 * MB < data_bytes()
    held.close()


@linux
def test_a_peak_owes_nothing_to_the_parent():
    held = touch(200 * MB)
    (kilobytes,) = python("print(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1])")
    held.close()
    assert kilobytes < 60 * 1024


@linux
def test_a_process_that_is_gone_holds_nothing(sleeper):
    sleeper.kill()
    wait_until(lambda: rss_bytes(sleeper.pid) == 0)  # it has ended, but is not waited for
    sleeper.wait()
    assert rss_bytes(sleeper.pid) is peak_rss_bytes(sleeper.pid) is None


# ---- what can be had ----


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A folder with 8 GB available in proc, and these control groups."""
    files = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n", "proc/self/cgroup": groups} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(folder: str, limit: str, usage: int, file: int = 0) -> dict[str, str]:
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": str(usage),
            f"{folder}/memory.stat": f"anon 5\ninactive_file {file}\nactive_file 7"}


def version_1(folder: str, limit: int, usage: int, file: int = 0) -> dict[str, str]:
    return {f"{folder}/memory.limit_in_bytes": str(limit), f"{folder}/memory.usage_in_bytes": str(usage),
            f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {file}"}


GROUPS = "sys/fs/cgroup"
MACHINES = {
    "without groups": (8192, "", {}),
    "version 2": (600, "0::/job", version_2(f"{GROUPS}/job", str(1000 * MB), 400 * MB)),
    "version 2, pages of files": (700, "0::/job", version_2(f"{GROUPS}/job", str(1000 * MB), 400 * MB, 100 * MB)),
    "version 2, no limit": (8192, "0::/job", version_2(f"{GROUPS}/job", "max", 400 * MB)),
    "version 2, the group above": (100, "0::/user/job", version_2(f"{GROUPS}/user", str(1000 * MB), 900 * MB)
                                   | version_2(f"{GROUPS}/user/job", "max", 400 * MB)),
    "version 2, in a container": (50, "0::/outside/job", version_2(GROUPS, str(200 * MB), 150 * MB)),
    "version 1": (300, "9:name=systemd:/\n4:cpu,memory:/job\n1:cpu:/x",
                  version_1(f"{GROUPS}/memory/job", 1000 * MB, 800 * MB, 100 * MB)),
    "version 1, no limit": (8192, "4:memory:/job", version_1(f"{GROUPS}/memory/job", 2**63 - 4096, 800 * MB)),
    "full": (0, "0::/job", version_2(f"{GROUPS}/job", str(1000 * MB), 1100 * MB)),
}


@pytest.mark.parametrize("name", MACHINES)
def test_free_is_what_machine_and_groups_leave(name, tmp_path):
    free, groups, files = MACHINES[name]
    assert free_bytes(machine(tmp_path, groups, files)) == free * MB


def test_without_proc_nothing_is_known(tmp_path):
    assert free_bytes(tmp_path) is None


# ---- how it gets memory ----

FREED = """
import torch
from memory_prediction.process import *
choose_allocator("{}")
before, data = rss_bytes(), data_bytes()
held = [torch.ones(2**18) for _ in range(100)]
keep = torch.ones(10)
del held
print(rss_bytes() - before, data)
"""


@pytest.mark.slow
@linux
def test_tight_gives_freed_tensors_back_and_fast_keeps_them():
    (tight, data), (fast, data_of_fast) = (python(FREED.format(kind)) for kind in ("tight", "fast"))
    assert tight < 4 * MB
    assert 98 * MB < fast < 110 * MB
    assert abs(data_of_fast - data) < 8 * MB  # a reserve would count under a limit, used or not


ROUNDS = """
import random
import torch
from memory_prediction.process import *
choose_allocator("fast")
rng, before = random.Random(0), rss_bytes()
for _ in range(30):
    held = [torch.ones(rng.randrange(2**14, 2**17)) for _ in range(100)]
    small = [bytes(rng.randrange(600, 900)) for _ in range(100)]
    rng.shuffle(held)
    while held:
        held.pop()
    large = [torch.ones(2**20) for _ in range(7)]
    del large
print(peak_rss_bytes() - before)
"""
WITHOUT = {name: value for name, value in os.environ.items() if name != heap.VARIABLE}


@pytest.mark.thorough
@linux
def test_freed_tensors_are_joined_into_larger_blocks():
    [apart], [joined] = python(ROUNDS, WITHOUT), python(ROUNDS, heap.with_joined(WITHOUT))
    assert 28 * MB < joined < 0.9 * apart


@pytest.mark.parametrize(("given", "there"), [
    (None, "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"),
    ("glibc.malloc.check=3", "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.check=3"),
    ("glibc.malloc.tcache_count=9", "glibc.malloc.tcache_count=9:glibc.malloc.mxfast=0"),
])
def test_other_settings_of_glibc_are_kept(given, there):
    environment = {"HOME": "/"} | ({heap.VARIABLE: given} if given else {})
    assert heap.with_joined(environment) == {"HOME": "/", heap.VARIABLE: there}
    assert heap.joins_freed(heap.with_joined(environment)) == ("count=9" not in there)


@linux
def test_train_begins_again_in_the_same_process(start, monkeypatch):
    monkeypatch.delenv(heap.VARIABLE, raising=False)
    process = start()
    begun = Path(f"/proc/{process.pid}/environ")  # glibc writes zeros there between its settings
    wait_until(lambda: all(f"{name}={value}" in begun.read_text() for name, value in heap.SETTINGS.items()))
    assert process.poll() is None


def test_a_program_begins_again_once_with_its_words():
    code = """
import os, sys
sys.path.insert(0, ".")
from configuration import heap
print(os.getpid(), flush=True)
heap.restart()
print(sys.argv[1:], sys.flags.dont_write_bytecode)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code, "--flag", "a b", ""], cwd=ROOT, capture_output=True,
                          text=True, env=WITHOUT)
    assert (done.returncode, done.stderr) == (0, "")
    *processes, last = done.stdout.splitlines()
    assert last == "['--flag', 'a b', ''] 1"
    assert len(processes) == 1 + (sys.platform == "linux") and len(set(processes)) == 1


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert choose_allocator("tight") is False


def test_warming_up_draws_no_random_number():
    before = torch.get_rng_state()
    warm_up()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.thorough
@linux
def test_a_baseline_is_without_what_was_freed_before():
    before, after = python("""
import torch
from memory_prediction.baseline import baseline_bytes
from memory_prediction.process import choose_allocator
choose_allocator("fast")
print(baseline_bytes())
held = torch.ones(2**24)
del held
print(baseline_bytes())
""")
    assert abs(after - before) < 16 * MB


# ---- what it may get ----

TRAINING = """
import torch
from config import override, Config
from data import Batch
from model import Model
from training.step import TrainState
from memory_prediction.baseline import warm_up
from memory_prediction.process import *

cfg = override(Config(), {{"model.vocab_size": 4096, "model.max_seq_len": 128, "train.precision": "float32",
                           "train.optimizer": "adamw"}})

def train(steps):
    state = TrainState(Model(cfg.model), cfg.train)
    x = torch.randint(4096, (24, 128))
    for number in range(1, steps + 1):
        state.step([Batch(x, x, None, x.numel())], number=number, lr=1e-3, noise=[])

choose_allocator("{allocator}")
torch.set_num_threads({threads})
warm_up()
for limit in {limits}:
    choose_allocator("{allocator}")  # gives back what the last one has left
    reset_peak_rss()
    before, refused = rss_bytes(), 0
    undo = limit_growth(limit << 20)
    try:
        train(2)
    except Exception as error:
        assert is_out_of_memory(error), repr(error)
        error.__traceback__ = None
        refused = 1
    undo()
    print(refused, (peak_rss_bytes() - before) >> 20)
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("allocator", "threads"), some([
    ("tight", 1), ("fast", 1), ("tight", 2)], 3))
def test_under_a_limit_training_is_refused_memory_and_does_not_crash(allocator, threads):
    limits = [1, 30, 80, 3000]
    told = [number for some in (limits[:-1], limits[-1:])  # oneDNN makes no program that was refused memory once
            for number in python(TRAINING.format(allocator=allocator, threads=threads, limits=some))]
    refused, peaks = told[::2], told[1::2]
    assert refused == [1, 1, 1, 0]
    assert all(peak <= max(limit, 32) + 16 for peak, limit in zip(peaks, limits, strict=True)), peaks
    assert peaks[-1] > 100  # what it takes if it may


@linux
@pytest.mark.slow
def test_a_limit_is_taken_back():
    code = ("import torch\nfrom memory_prediction.process import *\nundo = limit_growth(50 << 20)\n"
            "try:\n    torch.ones(2**25)\nexcept RuntimeError as error:\n    print(int(is_out_of_memory(error)))\n"
            "undo()\nprint(torch.ones(2**25).numel())")
    assert python(code) == [1, 2**25]


def test_where_nothing_can_be_measured_a_limit_is_an_error(monkeypatch):
    monkeypatch.setattr(process, "_status", lambda name, pid: None)
    with pytest.raises(ValueError, match="only Linux"):
        limit_growth(MB)
    with pytest.raises(ValueError, match="needs Linux"):
        Watchdog(None, MB, print)


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("could not create a primitive"), RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory"), RuntimeError("can't start new thread"),
], ids=repr)
def test_running_out_of_memory_is_known_by_its_error(error):
    assert is_out_of_memory(error)
    outer = ValueError("a step failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer)


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"), ValueError("out of memory"),
    OSError(errno.ENOSPC, "No space left on device"),
], ids=repr)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@linux
def test_the_watchdog_stops_a_process_that_grows():
    code = "held = []\nwhile True: held.append(b'x' * (1 << 20))"
    grows, seen = subprocess.Popen([sys.executable, "-c", code]), []
    peaks = []

    def stop(rss: int) -> None:
        seen.append(rss)
        os.kill(grows.pid, 19)  # SIGSTOP: its peak is to be read
        peaks.append(peak_rss_bytes(grows.pid))
        grows.kill()

    with Watchdog(grows.pid, 100 * MB, stop) as watchdog:
        assert grows.wait(timeout=30) == -9
    assert len(seen) == 1
    assert 100 * MB < seen[0] <= peaks[0]
    assert 100 * MB < watchdog.peak_bytes <= peaks[0]


@linux
def test_the_watchdog_lets_those_below_the_limit_live(sleeper):
    seen = []
    with Watchdog(sleeper.pid, rss_bytes(sleeper.pid) + 20 * MB, seen.append):
        time.sleep(0.2)
        sleeper.communicate("\n")  # it ends by itself, and so does the watching
        time.sleep(0.1)
    assert sleeper.returncode == 0
    assert not seen


@linux
def test_the_watchdog_watches_its_own_process():
    seen = []
    with Watchdog(None, rss_bytes() + 40 * MB, seen.append):
        held = touch(80 * MB)
        wait_until(lambda: seen)
    held.close()
    assert len(seen) == 1
