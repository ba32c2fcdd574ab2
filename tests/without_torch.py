"""Run the programs that stand on the command line, each in a fork of this process, which has not imported torch.

Each line of input is JSON, [program, *words]; each line of output [status, output, errors, whether torch was imported].
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

import rich.console  # noqa: F401 what most programs import, once for all
import tyro  # noqa: F401
import yaml  # noqa: F401

import config  # noqa: F401
import presets  # noqa: F401


def run(door: str, words: list[str], results: Path) -> None:
    """Be the program, and leave in a folder what it says."""
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(results / name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv, sys.path[0] = [door, *words], os.path.dirname(door)
    status = 0
    try:
        runpy.run_path(door, run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        status = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (results / "torch").write_text("yes" if "torch" in sys.modules else "")
        os._exit(status)


for line in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
        door, *words = json.loads(line)
        if (pid := os.fork()) == 0:
            run(door, words, Path(folder))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = [(Path(folder) / name).read_text() for name in ("output", "errors", "torch")]
        print(json.dumps([status, *said]), flush=True)
