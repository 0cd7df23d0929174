# One name per task; `make help` lists them. Every recipe runs in the environment .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test workers of one thread each: quicker than one of two, as most tests are small.
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# Compiled tests and modules are kept, so that each worker starts at once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo format check test slow bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv, install the pinned versions, compile the kernels (once)

# A changed pin or dependency installs again; otherwise nothing is done.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	$(BIN)/python -c 'from matheron.linalg.warm_up import warm_up; warm_up()'
	touch $@

demo: setup  ## the whole story in about a minute: simulate, observe, map, score, report
	env -u OMP_NUM_THREADS $(BIN)/matheron demo -o demo

format: setup  ## sort the imports and format the code
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

check: setup  ## lint, types, layers, length of the files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy matheron
	$(BIN)/lint-imports
	@awk 'FNR == 601 {print FILENAME ": over 600 lines"; bad = 1} END {exit bad}' \
	    $$(find matheron tests -name '*.py')

test: setup  ## the laws and the examples, in parallel
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

slow: setup  ## the laws that take minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu"

bench: setup  ## the figures of docs/verification.md (TASK=path of one benchmark, else all)
	for task in $(or $(TASK),$(wildcard benchmarks/*/*.py)); do \
	    env -u OMP_NUM_THREADS $(BIN)/python $$task || exit 1; done

docs: setup  ## build the documentation into docs/_build
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W -b html docs docs/_build

clean:  ## remove what the targets made, but not .venv
	rm -rf demo docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find matheron tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
