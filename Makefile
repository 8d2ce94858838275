# Needs Python 3.10 or newer, make, git and a C library. Everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where this is set, each of the hundreds of processes that the tests start compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
CODE := $(wildcard sfwriter actors benchmarks deploy)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types imports unit wheel bench simulate constraints format clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create or update the environment in .venv

$(READY): pyproject.toml constraints.txt Makefile
	@command -v $(firstword $(PYTHON)) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here, and sfwriter needs Python 3.10 or newer."; \
	  echo "Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "sfwriter needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	  echo "Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' comes without venv. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; } >&2
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[service,connect,dev]'
	@touch $@

demo: $(READY) ## real pipelines through the service, a writer killed, and a proof that every row is there once
	@$(BIN)/python -m deploy.demo

test: lint types imports unit wheel ## everything that must be green

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy --strict
	$(BIN)/mypy $(CODE)

imports: $(READY) ## the layers, by import-linter
	$(BIN)/lint-imports --no-cache

unit: $(READY) ## the tests, on two processes
	$(BIN)/python -m pytest --numprocesses 2

wheel: $(READY) ## build the wheel, install it alone, import it
	$(BIN)/python scripts/check_wheel.py

bench: $(READY) ## run the benchmarks
	$(BIN)/python -m benchmarks run

simulate: $(READY) ## millions of steps of the core against every fault: make simulate STEPS=5000000 SEED=1
	$(BIN)/python -m sfwriter.testing.simulator --steps $(or $(STEPS),2000000) $(if $(SEED),--seed $(SEED)) $(if $(REPLAY),--replay $(REPLAY))

constraints: $(READY) ## pin the newest versions that pyproject.toml allows
	$(BIN)/python scripts/make_constraints.py

format: $(READY) ## let ruff repair what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment, builds and caches
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
