"""What programs import before they answer, when Python looks for garbage, and the benchmark that times both."""

import gc
import math
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from configuration import garbage
from configuration.command_line import run_command
from experiments.benchmarks import start_up
from experiments.benchmarks.benchmark_options import Startup
from experiments.benchmarks.start_up import Seconds, Start, fastest, measure
from experiments.common.program import one_sentence
from showing.command import main as show_model

ROOT = Path(__file__).resolve().parent.parent
LATE = ("torch._dynamo", "pandas", "pyarrow", "matplotlib", "scipy")  # what the first step or the last line imports


@pytest.mark.slow
def test_importing_what_trains_imports_no_compiler_no_table_and_no_picture():
    code = f"import sys, train, memory, inference, optim; print([name for name in {LATE} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, text=True,
                          capture_output=True).stdout == "[]\n"


# ---- garbage ----


@contextmanager
def waiting():
    """As a program is while it imports."""
    garbage.wait()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def seen():
    """Whether Python looked for garbage at each moment that was noted."""
    return []


@pytest.fixture
def note(seen):
    return lambda *_, **__: seen.append(gc.isenabled())


def test_what_is_imported_meanwhile_is_never_looked_at_again():
    with waiting():
        assert not gc.isenabled()
        before, kept = gc.get_freeze_count(), [[] for _ in range(1000)]
        garbage.begin()
        assert gc.isenabled() and gc.get_freeze_count() >= before + len(kept)
    frozen = gc.get_freeze_count()
    garbage.begin()  # without `wait` nothing is frozen
    assert gc.get_freeze_count() == frozen


def test_a_command_runs_while_python_looks_for_garbage(note, seen):
    def go() -> None:
        """One command."""
        note()

    def stay() -> None:
        """Another one."""

    with waiting():
        run_command(["go"], {"go": go, "stay": stay}, "", "")
    assert seen == [True]


def test_an_experiment_runs_while_python_looks_for_garbage(note, seen):
    with waiting(), one_sentence():
        note()
    assert seen == [True]


def test_a_model_is_shown_while_python_looks_for_garbage(call, monkeypatch, note, seen):
    monkeypatch.setattr("showing.display.show", note)
    with waiting():
        assert call(show_model, "default") == (0, "", "")
    assert seen == [True]


@pytest.mark.parametrize("door", ["train", "memory", "inference", "optim"])
def test_a_door_looks_for_garbage_once_all_is_imported(door):
    head, end = (ROOT / f"{door}.py").read_text().split('if __name__ == "__main__":')[1::1]
    assert "    garbage.wait()\n" in head and end.startswith("\n    garbage.begin()\n    main(")


# ---- the benchmark ----


def test_the_fastest_of_each_time_counts():
    assert fastest([Seconds(1.0, 5.0), Seconds(2.0, 3.0)]) == (1.0, 3.0)


def test_a_process_is_measured_whole(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    found = measure(Start(("-c", busy), None), tmp_path)
    assert 0.2 <= found.processor < 2 and found.clock >= 0.2
    with pytest.raises(ValueError, match="ended with 3"):
        measure(Start(("-c", "raise SystemExit(3)"), None), tmp_path)


LOG = """
import os, sys, time
folder = os.path.join(os.environ["SHAPESHIFTER_MODELS"], sys.argv[-1])
os.mkdir(folder)
for line in ("step", "1"):
    time.sleep(0.1)
    open(os.path.join(folder, "log.csv"), "a").write(line + "\\n")
time.sleep(100)
"""


def test_a_run_is_measured_until_its_first_step(tmp_path):
    assert 0.2 <= measure(Start(("-c", LOG), None, trains=True), tmp_path).clock < 20
    with pytest.raises(ValueError, match="ended with 0"):  # before its first step
        measure(Start(("-c", "pass"), None, trains=True), tmp_path)


@pytest.mark.parametrize(("start", "seconds", "reached"), [
    (Start(("a",), 1.0), Seconds(0.9, 9.0), True), (Start(("a",), 1.0), Seconds(1.1, 1.1), False),
    (Start(("a",), None), Seconds(math.inf, 1.0), True), (Start(("a",), 1.0, trains=True), Seconds(0.9, 1.1), False)])
def test_the_benchmark_succeeds_if_every_command_stays_below_its_bar(start, seconds, reached, monkeypatch, capsys):
    monkeypatch.setattr(start_up, "STARTS", (start,))
    monkeypatch.setattr(start_up, "measure", lambda *_: seconds)
    assert start_up.run(Startup(rounds=2), Console(width=100)) is reached
    assert ("missed" in capsys.readouterr().out) is not reached


def test_every_program_is_asked_for_its_help():
    assert {"train.py", "memory.py", "inference.py", "presets.py", "tokenizer.py", "model.py", "optim.py", "runs.py",
            "experiments/compare.py", "experiments/search.py"} <= set(start_up.PROGRAMS)
    assert "experiments/_project.py" not in start_up.PROGRAMS
