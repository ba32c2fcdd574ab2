"""Parts of a benchmark that run in a fresh process, whose memory nothing else has touched."""

import os
import subprocess
import sys

from run_store.listing import ROOT


def start(module: str, *words: str, threads: int | None = None, **options) -> subprocess.Popen:
    """Run a module of this folder as a program of its own, with its standard output in a pipe."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.Popen([sys.executable, "-P", "-m", f"experiments.benchmarks.{module}", *words], text=True,
                            stdout=subprocess.PIPE, env=environment, **options)
