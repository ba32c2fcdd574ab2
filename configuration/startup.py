"""Imported first by every program, since it needs no package: a missing one is a sentence, not a traceback."""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "pydantic", "tyro", "yaml", "rich", "numpy", "pandas", "filelock", "safetensors", "tokenizers")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    print(f"error: {sys.executable} has no package {missing[0]}: run `make` once, then start programs with "
          ".venv/bin/python", file=sys.stderr)
    raise SystemExit(2)
