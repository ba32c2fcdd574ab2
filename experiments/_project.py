"""Puts the project on the import path, so that `python experiments/compare.py` works from any folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configuration import garbage, startup  # noqa: E402, F401, before all that needs a package

garbage.wait()
