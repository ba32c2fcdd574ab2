"""Makes the project importable from its programs: `python experiments/compare.py` works from any folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
