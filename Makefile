# Two commands do everything, set-up included:
#   make quickstart   the main job at small size: simulate, train, infer, compare
#   make test         lint, types, floors and the whole test suite

PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0

.PHONY: setup quickstart test lint clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[baselines,cluster,parquet,samplers,simulators,transport]" --group dev $(TORCH)
	touch $@

quickstart: setup
	$(BIN)/mflow-sbi quickstart --folder quickstart

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

clean:
	rm -rf .venv quickstart runs
