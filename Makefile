# Two commands for a newcomer: `make demo` and `make test`. Each installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
JOBS ?= 2

# Tests and lint on two cores: one thread a process, or they fight over the cores.
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg
# They start many processes: where bytecode is not kept, each of them compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test unit lint docs install open-clip audit clean

demo: $(DEMO_STAMP)
	@echo "Running the demo: 12 runs, under 4 minutes on 2 cores. Ctrl-C stops it; make demo continues."
	$(BIN)/driftscope demo --out demo-out

# Lint beside the tests: mypy would leave one of two cores idle.
test: $(DEV_STAMP)
	$(MAKE) --jobs 2 lint unit

unit: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

install: $(DEV_STAMP)

# The demo needs the package alone; Ray, Lightning, MLflow, Playwright and MkDocs come with the tests.
$(DEMO_STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "driftscope needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version);" \
		"name another with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Installing driftscope into $(VENV): 1.8 GB. It took 66 s of CPU time; your download comes on top."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: the version pinned is the CPU build, any other pulls CUDA in
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $(DEMO_STAMP)

$(DEV_STAMP): $(DEMO_STAMP)
	@echo "Installing the development tools into $(VENV): 1 GB more. Both installs took 3.5 minutes on 2 slow cores."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(DEV_STAMP)

# open_clip for the tests that ask it: in a folder by itself, for its torchvision does not load here.
open-clip: $(DEV_STAMP)
	$(PIP) install --quiet --no-deps --target $(VENV)/open-clip open_clip_torch==3.3.0 timm==1.0.31 ftfy wcwidth
	$(BIN)/python -m pytest tests/test_open_clip_real.py

# Known vulnerabilities of what is installed. It asks pypi.org, which not every machine may.
audit: $(DEV_STAMP)
	$(PIP) install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable --progress-spinner off

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
