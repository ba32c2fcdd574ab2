"""The notebooks, as they are committed and as they run in a fresh copy of the project."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
SOMEONES = re.compile(rf"{re.escape(str(ROOT))}|/(home|Users|root)/\w|\b[A-Z]:\\\\")  # a path of one machine
MAX_BYTES = 300_000
SMALLER = {  # numbers that make the test quicker, and change nothing else
    "build_tokenizer.ipynb": {"sizes, rows = [300, 512, 1024, 2048, 4096]": "sizes, rows = [300, 1024]"},
    "hyperparameter_search.ipynb": {"trials=8": "trials=5", "trial_tokens=40_000": "trial_tokens=2_000"},
    "inference.ipynb": {'"model.num_layers": 2': '"model.num_layers": 1',
                        '"train.steps": 300': '"train.steps": 8',
                        '"train.graded_stories": 20': '"train.graded_stories": 2', "num_samples=12, max_new_tokens=120":
                        "num_samples=3, max_new_tokens=40"},
    "ladder.ipynb": {'"tokens": 98_304': '"tokens": 1_024'},
    "model_comparison.ipynb": {'"model.num_layers": 2': '"model.num_layers": 1',
                               '"train.steps": 150': '"train.steps": 25', "100_000)": "10_000)",
                               '{"base": 3, "pointer": 3, "window": 3,': '{"base": 2, "pointer": 2, "window": 1,'},
    "objectives.ipynb": {'"model.num_layers": 2': '"model.num_layers": 1',
                         '"train.steps": 600': '"train.steps": 4', '"train.eval_every": 50': '"train.eval_every": 2'},
    "probes.ipynb": {'"train.steps": 200': '"train.steps": 4', '"train.eval_every": 20': '"train.eval_every": 2'},
    "train.ipynb": {'"train.steps": 300': '"train.steps": 12', '"train.eval_every": 50': '"train.eval_every": 6',
                    '"train.sample_every": 100': '"train.sample_every": 6',
                    '"train.graded_stories": 20': '"train.graded_stories": 2'},
}


def cells_of(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "notebooks" / name).read_text())["cells"]


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in cells_of(name) if cell["cell_type"] == "code"]


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def make_smaller(sources: list[str], numbers: dict[str, str]) -> list[str]:
    """The same with other numbers; each must stand in one of them."""
    for old, new in numbers.items():
        assert sum(old in source for source in sources) == 1, old
        sources = [source.replace(old, new) for source in sources]
    return sources


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_as_one_run_from_top_to_bottom(name):
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2
    assert not [output["ename"] for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_and_holds_nothing_of_the_machine_it_ran_on(name):
    assert (ROOT / "notebooks" / name).stat().st_size < MAX_BYTES
    for cell in cells_of(name):
        assert not SOMEONES.search(source_of(cell))
        assert "execution" not in cell["metadata"]  # when it ran
        for output in cell.get("outputs", []):
            texts = output.get("data", {}) | {"text": output.get("text", "")}
            shown = json.dumps({kind: text for kind, text in texts.items() if kind != "image/png"})
            assert not SOMEONES.search(shown)
            assert not re.search(r"\bat 0x[0-9a-f]+", shown)
            assert "\\u001b" not in shown  # a terminal's colours and progress bars
            assert "declared '" not in shown  # a trace's complaint of axes that are not what a part says


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_calls_functions_and_defines_none(name):
    source = "\n".join(source_of(cell) for cell in code_cells(name))
    assert not re.search(r"^\s*(def|class) ", source, re.MULTILINE)


@pytest.fixture(scope="module")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[str]], None]]:
    """Execute cells in a Jupyter kernel without settings of the user's, in a copy of the project.

    Nothing is left of cells before but what they have imported. Raises with a cell's traceback.
    """
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    place = tmp_path_factory.mktemp("jupyter")
    project, runs = place / "project", place / "runs"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "tests", "models", "results"))
    where = {"metadata": {"path": project / "notebooks"}}
    client = NotebookClient(new_notebook(), timeout=300, resources=where)

    def run(sources: list[str]) -> None:
        shutil.rmtree(runs, ignore_errors=True)
        for source in ("%reset -f", *sources):
            client.nb.cells.append(new_code_cell(source))
            client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)
        assert not (project / "models").exists()

    environment = {"SHAPESHIFTER_MODELS": runs, "OMP_NUM_THREADS": 1, "IPYTHONDIR": place, "JUPYTER_DATA_DIR": place}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, str(value))
        with client.setup_kernel():
            yield run


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_copy_of_the_project(name, execute):
    execute(make_smaller([source_of(cell) for cell in code_cells(name)], SMALLER.get(name, {})))
