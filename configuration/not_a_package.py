"""What `pip install .` runs (build-backend in pyproject.toml): it says how to use the project instead.

Its modules have names such as `data` and `train`, and its users edit them, so they belong into a folder of their own.
"""

import sys

sys.exit("Shapeshifter is a project to clone and edit, not a package to install: run `make train` in its folder, or "
         "`pip install -r requirements.txt`, then `python train.py`")
