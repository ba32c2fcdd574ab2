"""The room of config.py: flags as a tree, checks, files, error sentences, the command line.

Only model_rules.py, rules.py and migrations.py name flags. Nothing here imports torch.
"""

import os

# torch's threads wait for each other asleep: two that spin on a core that others use take five times as long
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
