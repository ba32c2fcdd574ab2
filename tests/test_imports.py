"""Imports point one way, and no file hides another's name."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# what each file, or folder of files, may import of the others; only experiments, notebooks and tests import the rest
MAY_IMPORT = {
    "files": "",
    "command_line": "",
    "config": "",
    "storybook": "",
    "grammar": "storybook",
    "tales": "grammar storybook",
    "checkpoint": "files",
    "stopping": "",
    "journal": "command_line files",
    "views": "",
    "tracing": "views",
    "tools": "tracing views",
    "process": "",
    "modules": "tools",
    "presets": "command_line config",
    "shelf": "command_line config files presets",
    "tokenization": "",
    "tokenizer": "command_line tales tokenization",
    "pieces": "",
    "reading": "pieces",
    "locks": "",
    "tables": "reading",
    "hub": "reading tables tokenization",
    "corpora": "config files hub pieces reading tables tales",
    "encoder": "pieces tokenization tokenizer",
    "shards": "corpora encoder locks reading tokenizer",
    "packing": "",
    "data": "packing shards",
    "model": "config presets modules tools views",
    "schedules": "config",
    "gradients": "config",
    "optim": "command_line config presets schedules",
    "runs": "checkpoint command_line files journal config model shelf tokenizer",
    "trackers": "command_line config runs",
    "transfer": "checkpoint config files model runs tokenizer",
    "step": "config data gradients model optim tools",
    "saving": "checkpoint command_line config runs step stopping",
    "sampling": "config model",
    "evaluation": "data model sampling tokenizer",
    "live": "",
    "rehearsal": "config data live model sampling evaluation step",
    "prediction": "config model process rehearsal sampling tools",
    "fitting": "command_line config prediction",
    "memory": "command_line config presets model fitting prediction process rehearsal",
    "budget": "command_line config files fitting prediction process",
    "inference": "sampling runs command_line config presets tokenizer data model tools",
    "report": "files inference sampling evaluation trackers runs checkpoint command_line config tales tokenizer data "
              "model schedules tools",
    "train": "report inference evaluation trackers transfer saving runs stopping checkpoint command_line config "
             "presets tokenizer tales corpora shards data model schedules step budget process tools",
}
PROGRAMS = {"experiments", "notebooks", "tests"}  # they may import anything
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
FILES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in folder.rglob("*.py"))])


SPLIT = {"footprint", "text", "training"}  # folders whose files stand in MAY_IMPORT one by one


def unit(path: Path) -> str:
    """The file's name at the top level and in SPLIT, another folder's below it."""
    first = path.relative_to(ROOT).parts[0]
    return path.stem if first in SPLIT and path.name != "__init__.py" else Path(first).stem


def imported(path: Path) -> set[str]:
    """The first part of every module's name that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module if node.level == 0 else unit(path)
            names |= {f"{module}.{alias.name}" for alias in node.names} if module in SPLIT else {module}
    return {name.split(".")[name.split(".")[0] in SPLIT] for name in names}


LAYERED = [path for path in FILES if unit(path) not in PROGRAMS | SPLIT]


@pytest.mark.parametrize("path", LAYERED, ids=lambda path: str(path.relative_to(ROOT)))
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
    # what lies in a folder of experiments/ holds no program and goes by its folder's name, as comparing.statistics does
    names = {path.stem for path in FILES if path.parent.parent != ROOT / "experiments"}
    names |= {folder.name for folder in FOLDERS}
    assert not (names - {"__init__"}) & (sys.stdlib_module_names | {"datasets"})


@pytest.mark.parametrize("folder", ["tokenizers", "models", "notebooks"])
def test_a_folder_of_data_is_no_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()  # it would hide an installed package of that name
