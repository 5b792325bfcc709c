# Needs Python 3.10 or newer, make and a C library; every target makes what it needs.
#   make demo    install, simulate a study as DICOM, predict it, write demo/report.png
#   make test    install, run the tests with branch coverage
#   make lint    install, ruff and mypy
#   make clean   remove the environment and everything made here
# Another interpreter: make demo PYTHON=python3.12. Another environment: make test VENV=/some/where.
# More tests side by side on more cores: make test JOBS=4.

PYTHON ?= python3
VENV ?= .venv
DEMO_CAUSE ?= pji
DEMO_SEED ?= 4
PYTEST_ARGS ?=
JOBS ?= 2
TEST_EXTRAS ?= cpu,test

BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint clean

demo: $(VENV)/.cpu
	@echo "== Simulating a study of a hip with $(DEMO_CAUSE) as DICOM: demo/study"
	@$(BIN)/hipnet-edge simulate --cause $(DEMO_CAUSE) --seed $(DEMO_SEED) --out demo/study
	@echo "== Predicting it: hipnet-edge predict demo/study/ap.dcm demo/study/lateral.dcm --out demo"
	@$(BIN)/hipnet-edge predict demo/study/ap.dcm demo/study/lateral.dcm --out demo

test: $(VENV)/.test
	@echo "== Running the tests"
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not alone" --cov --cov-report= $(PYTEST_ARGS)
	@echo "== and those that want no other beside them"
	@$(BIN)/python -m pytest -m alone --cov --cov-append --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/.lint
	@echo "== ruff check, ruff format --check, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then $(BIN)/mypy; \
	else echo "torch is not installed: mypy leaves out export/"; $(BIN)/mypy hipnet_edge; fi

clean:
	rm -rf $(VENV) demo build dist .coverage .pytest_cache .mypy_cache .ruff_cache

# The package is installed in place, so that a change of the source needs no new installation;
# a stamp stands for each set of extras and is as old as pyproject.toml.
$(VENV)/.cpu: EXTRAS = cpu
$(VENV)/.test: EXTRAS = $(TEST_EXTRAS)
$(VENV)/.lint: EXTRAS = cpu,test,lint

$(VENV)/.cpu $(VENV)/.test $(VENV)/.lint: $(VENV)/bin/python pyproject.toml
	@echo "== Installing hipnet-edge[$(EXTRAS)] into $(VENV)"
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

$(VENV)/bin/python:
	@echo "== Making an environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make demo PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
