"""The room of config.py: flags as a tree, checks, files, error sentences, the command line.

Only acting.py, plain.py, the files of rules and migrations.py name flags. Nothing here imports torch.
"""

import os

BUSY = 1.5  # programs that want to run, for each processor


def load_per_processor() -> float:
    """The programs that wanted to run in the last minute, for each processor; 0 if the system does not tell."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


# on a busy machine torch's threads wait for each other asleep: where they spin, a step takes five times as long; on a
# quiet one spinning saves a third of a small step
if load_per_processor() >= BUSY:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
