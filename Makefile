# The two commands of a newcomer: `make demo` and `make test`. Both set up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo sweep reproduce-smoke test test-nightly lint bench clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

setup: $(READY) ## Make .venv with the tested versions

demo: $(READY) ## Run the whole system on a synthetic archive (about three minutes)
	$(BIN)/dsdi demo --out demo-output

sweep: $(READY) ## Run a small hyperparameter search on synthetic pictures
	$(BIN)/python jobs/sweep_and_select.py --out sweep-output

reproduce-smoke: $(READY) ## Make the paper's tables with tiny networks (some 7 minutes)
	$(BIN)/dsdi reproduce --scale smoke --out smoke-output

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -m "not ray and not gpu and not nightly" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "ray and not gpu and not nightly"

test-nightly: $(READY) ## Run the tests that take too long for every change
	$(BIN)/python -m pytest tests/integration -m nightly

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## Run the benchmarks of tests/benchmarks
	@set -e; for script in tests/benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python $$script; done

clean: ## Remove what was made here, the venv included
	rm -rf $(VENV) demo-output sweep-output smoke-output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
