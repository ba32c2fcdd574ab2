"""Imports point one way, no file hides another's name, and both lists of packages name the same ones."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the bottom up, a line each for a door and the rooms behind it: what they may import besides what stands in their
# own room. No room lies both above and below another. Only experiments, notebooks and tests import train. What a door
# does when it is run as a program (`if __name__ == "__main__"`) does not count: nobody who imports it runs that.
MAY_IMPORT = {
    "configuration": "",
    "config": "configuration",
    "families": "config configuration",
    "tracing": "",
    "tools": "tracing",
    "modules": "config configuration tools",
    "model": "config configuration modules tools",
    "presets": "config configuration families model tools",  # the last two count parameters, for --scale
    "tales": "",
    "probes": "",
    "tokenization": "configuration",
    "tokenizer": "configuration tales tokenization",
    "run_store": "config configuration presets",
    "corpora": "config configuration probes run_store tales tokenization tokenizer",
    "data": "corpora",
    "optimizing": "config modules presets",
    "optim": "config configuration model modules optimizing presets",
    "generation": "config configuration model run_store",
    "objectives": "config data generation model modules tokenizer tools",
    "objective": "config data model objectives tokenizer",
    "runs": "config configuration model run_store tokenizer tools",
    "exchange": "config configuration families model run_store runs tales tokenization tokenizer tools",
    "showing": "config configuration corpora families model modules presets run_store runs tools tracing",
    "inference": "config configuration data generation model objective presets runs tokenizer tools",
    "training": "config configuration corpora data generation inference model modules objective optim optimizing "
                "presets run_store runs tales tokenizer tools",
    "memory_prediction": "config configuration data generation model modules objective presets run_store tools "
                         "training",
    "memory": "config configuration memory_prediction model presets",
    "train": "config configuration corpora data memory_prediction model objective optim optimizing presets run_store "
             "runs tokenizer tools training",
}
PROGRAM = "__name__ == '__main__'"
PROGRAMS = {"experiments", "notebooks", "tests"}  # they may import anything
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
FILES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in folder.rglob("*.py"))])


def unit(path: Path) -> str:
    """The door, or the room, that a file belongs to."""
    return Path(path.relative_to(ROOT).parts[0]).stem


def imported(path: Path) -> set[str]:
    """The first part of every module's name that a file imports, anywhere but in what it does as a program."""
    names, body = set(), ast.parse(path.read_text(encoding="utf-8")).body
    kept = [node for node in body if not (isinstance(node, ast.If) and ast.unparse(node.test) == PROGRAM)]
    for node in (inner for outer in kept for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module if node.level == 0 else unit(path)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", [path for path in FILES if unit(path) not in PROGRAMS],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_below_it(path):
    assert unit(path) in MAY_IMPORT, f"say in MAY_IMPORT what {unit(path)} may import"
    ours = {unit(other) for other in FILES} - {unit(path)}
    wrong = imported(path) & ours - set(MAY_IMPORT[unit(path)].split())
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_directions_have_no_circle():
    names = list(MAY_IMPORT)
    for place, (name, others) in enumerate(MAY_IMPORT.items()):
        assert set(others.split()) <= set(names[:place]), f"{name} stands above what it imports"


def test_no_name_hides_the_standard_library():
    # a file in a folder is imported by its folder's name too; a program or a door is not
    names = {path.stem for path in FILES if len(path.relative_to(ROOT).parts) == 1}
    names |= {folder.name for folder in FOLDERS}
    assert not (names - {"__init__"}) & (sys.stdlib_module_names | {"datasets"})


@pytest.mark.parametrize("folder", ["tokenizers", "models", "notebooks"])
def test_a_folder_of_data_is_no_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()  # it would hide an installed package of that name


WITHOUT_TORCH = (  # test files
    "command_line", "config", "corpora", "foreign_tokenizers", "grow", "imports", "memory_cases", "notebooks",
    "packing", "pieces", "search_space", "shards", "statistics", "tales", "tokenizer")


@pytest.mark.slow
def test_tests_of_what_needs_no_torch_do_not_import_it():
    names = ", ".join(["conftest", *(f"test_{name}" for name in WITHOUT_TORCH)])
    code = f"import sys; sys.path[:0] = ['.', 'tests']; import {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def packages(lines: list[str]) -> set[str]:
    """Their names, without extras and versions."""
    return {re.match(r"[\w-]+", line)[0].lower() for line in lines if line and not line.startswith("#")}


def test_what_is_installed_is_what_the_project_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    extras.pop("peers")  # only to be compared with
    needed = [*project["dependencies"], *(name for names in extras.values() for name in names)]
    assert packages(needed) == packages((ROOT / "requirements.txt").read_text().splitlines())


def test_installing_the_project_as_a_package_says_that_it_is_one_to_clone(tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode and "a project to clone and edit, not a package to install: run `make train`" in done.stdout
    assert not list(tmp_path.iterdir())
