"""What several benchmarks measure with: fair timings, and fresh processes."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from run_store.listing import ROOT


def best_seconds(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """The seconds of each way's fastest call, in turns; processor time, which other processes do not change."""
    best = dict.fromkeys(ways, math.inf)
    for _ in range(rounds):
        for name, call in ways.items():
            began = clock()
            call()
            best[name] = min(best[name], clock() - began)
    return best


def clock_of(device_type: str) -> Callable[[], float]:
    """Processor time on a CPU, which other programs do not change; else the time that passes."""
    return time.process_time if device_type == "cpu" else time.perf_counter


def start(module: str, *words: str, threads: int | None = None, **options) -> subprocess.Popen:
    """Run a module of this folder in a fresh process, whose memory nothing else has touched; its output is a pipe."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.Popen([sys.executable, "-P", "-m", f"experiments.benchmarks.{module}", *words], text=True,
                            stdout=subprocess.PIPE, env=environment, **options)
