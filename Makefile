# Each target sets up .venv itself, once, and again when requirements.txt changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-quick test-thorough lint notebooks bench
train: .venv/installed
	$(BIN)/python train.py tales

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -rs

test-quick: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

test-thorough: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -rs --thorough

lint: .venv/installed
	$(BIN)/ruff check

notebooks: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --ExecutePreprocessor.record_timing=False --inplace notebooks/*.ipynb
	$(BIN)/jupyter nbconvert --to notebook --coalesce-streams --inplace notebooks/*.ipynb

bench: .venv/installed
	$(BIN)/python experiments/benchmark.py tracing

.venv/installed: requirements.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'Python 3.11 or newer is needed: make PYTHON=...'"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
