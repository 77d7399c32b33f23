# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
JOBS ?= 2

# Tests and lint on two cores: one thread a process, or they fight over the cores.
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

.PHONY: demo test unit lint docs install clean

demo: $(STAMP)
	$(BIN)/driftscope demo --out demo-out

test: lint unit

unit: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "driftscope needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version);" \
		"name another with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: the version pinned is the CPU build, any other pulls CUDA in
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
