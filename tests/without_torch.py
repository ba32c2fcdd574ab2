"""Run the programs of the command line, each in a fork of this process, which has not imported torch.

Each line of input is JSON, [program, *words]; each line of output [status, output, errors]. A program that imports
torch, or another package that takes long, ends with a traceback.
"""

import json
import os
import runpy
import sys
from functools import partial

import rich.console  # noqa: F401 what most programs import, once for all
import tyro  # noqa: F401
import yaml  # noqa: F401
from programs import Program

import presets  # noqa: F401

HEAVY = {"torch", "matplotlib", "pandas", "scipy"}


def be(door: str, *words: str) -> None:
    """Be a program of the command line."""
    sys.argv, sys.path[0] = [door, *words], os.path.dirname(door)
    try:
        runpy.run_path(door, run_name="__main__")
    finally:
        assert not HEAVY & sys.modules.keys()


for line in sys.stdin:
    program = Program(partial(be, *json.loads(line)), {}, fresh=True)
    said = program.communicate()
    print(json.dumps([program.returncode, *said]), flush=True)
