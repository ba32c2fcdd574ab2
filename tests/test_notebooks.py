"""The notebooks, as they are committed and as they run in a fresh copy of the project."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
SOMEONES = re.compile(rf"{re.escape(str(ROOT))}|/(home|Users|root)/\w|\b[A-Z]:\\\\")  # a path of one machine
MAX_BYTES = 300_000
SMALLER = {  # numbers that make the test quicker, and change nothing else
    "build_tokenizer.ipynb": {"sizes, rows = [300, 512, 1024, 2048, 4096]": "sizes, rows = [300, 1024]"},
    "hyperparameter_search.ipynb": {"trials=8": "trials=5", "trial_tokens=40_000": "trial_tokens=2_000"},
    "inference.ipynb": {'"train.steps": 300': '"train.steps": 8',
                        '"train.graded_stories": 20': '"train.graded_stories": 2', "num_samples=12, max_new_tokens=120":
                        "num_samples=3, max_new_tokens=40"},
    "ladder.ipynb": {'"tokens": 98_304': '"tokens": 1_024'},
    "model_comparison.ipynb": {'"train.steps": 150': '"train.steps": 25', "100_000)": "10_000)",
                               '{"base": 3, "pointer": 3, "window": 3,': '{"base": 2, "pointer": 2, "window": 2,'},
    "objectives.ipynb": {'"train.steps": 200': '"train.steps": 4', '"train.eval_every": 25': '"train.eval_every": 2'},
    "probes.ipynb": {'"train.steps": 200': '"train.steps": 4', '"train.eval_every": 20': '"train.eval_every": 2'},
    "train.ipynb": {'"train.steps": 300': '"train.steps": 12', '"train.eval_every": 50': '"train.eval_every": 6',
                    '"train.sample_every": 100': '"train.sample_every": 6',
                    '"train.graded_stories": 20': '"train.graded_stories": 2'},
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


def make_smaller(notebook: nbformat.NotebookNode, numbers: dict[str, str]) -> None:
    """Put other numbers into a notebook; each must be there."""
    for old, new in numbers.items():
        (cell,) = [cell for cell in code_cells(notebook) if old in cell.source]
        cell.source = cell.source.replace(old, new)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_as_one_run_from_top_to_bottom(name):
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    assert not [output.ename for cell in cells for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_and_holds_nothing_of_the_machine_it_ran_on(name):
    assert (ROOT / "notebooks" / name).stat().st_size < MAX_BYTES
    notebook = read(name)
    for cell in notebook.cells:
        assert not SOMEONES.search(cell.source)
        assert "execution" not in cell.metadata  # when it ran
        for output in cell.get("outputs", []):
            texts = output.get("data", {}) | {"text": output.get("text", "")}
            shown = json.dumps({kind: text for kind, text in texts.items() if kind != "image/png"})
            assert not SOMEONES.search(shown)
            assert not re.search(r"\bat 0x[0-9a-f]+", shown)
            assert "\\u001b" not in shown  # a terminal's colours and progress bars
            assert "declared '" not in shown  # a trace's complaint of axes that are not what a part says


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_calls_functions_and_defines_none(name):
    source = "\n".join(cell.source for cell in code_cells(read(name)))
    assert not re.search(r"^\s*(def|class) ", source, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_fresh_copy_of_the_project(name, tmp_path, monkeypatch):
    project, runs = tmp_path / "project", tmp_path / "runs"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "tests", "models", "results"))
    environment = {"SHAPESHIFTER_MODELS": runs, "OMP_NUM_THREADS": 1, "IPYTHONDIR": tmp_path / "ipython",
                   "JUPYTER_DATA_DIR": tmp_path / "jupyter"}  # no kernel or setting of the user's
    for variable, value in environment.items():
        monkeypatch.setenv(variable, str(value))
    notebook = read(name)
    make_smaller(notebook, SMALLER.get(name, {}))
    where = {"metadata": {"path": project / "notebooks"}}
    NotebookClient(notebook, timeout=300, resources=where).execute()  # raises with the cell and its traceback
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not (project / "models").exists()
