# `make run` and `make test` do all set-up; each is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-build-isolation

STANDARD = $$($(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print("alcore", *(line.split(">")[0] for line in extras["standard"]))')

.PHONY: help run setup install environment wheels test lint bench faults clean python

help:
	@echo "make run      set up .venv, then run active learning on the two-moons problem"
	@echo "make install  install core and the standard plugins into the active environment"
	@echo "make wheels   build every distribution into dist/"
	@echo "make setup    set up .venv with test tools, and run nothing"
	@echo "make test     set up .venv with test tools, then run all tests"
	@echo "make lint     ruff, mypy --strict and import-linter"
	@echo "make bench    the benchmarks that need nothing else"
	@echo "make faults   kill runs at every system call and fail each, interrupt runs at 1,500 moments, and kill ranks and jobs (needs strace and Slurm; takes about an hour)"
	@echo "make clean    remove .venv and caches"

run: $(VENV)/standard.stamp
	$(BIN)/alcore run --query uq --metrology f1
	@echo
	@echo "alcore is installed in $(VENV). To have the command on your PATH, in this terminal:"
	@echo "    . $(BIN)/activate"
	@echo "Then, for a table of your own: alcore run FILE.csv --target COLUMN"

setup: $(VENV)/test.stamp
	@echo "$(VENV) is ready. To have its programs on your PATH: . $(BIN)/activate"

# All wheels have one version, which may be that of wheels that are installed: so they replace those in any case.
install: environment wheels
	python3 -m pip --disable-pip-version-check install --quiet --find-links dist "alcore[standard]"
	@python3 -m pip --disable-pip-version-check install --quiet --no-deps --no-index --force-reinstall --find-links dist $(STANDARD)
	@echo "Installed in $$(python3 -c 'import sys; print(sys.prefix)'). Try it: alcore run --query uq --metrology f1"

environment: python
	@python3 -c 'import os, sys; sys.exit(sys.prefix == sys.base_prefix and not os.environ.get("CONDA_PREFIX"))' || { \
	  echo "No Python environment is active, so there is nothing to install into. Make one, activate it, and try again:"; \
	  echo "    python3 -m venv ~/alcore-env && . ~/alcore-env/bin/activate && make install"; exit 2; }

wheels: $(VENV)/build.stamp
	@rm -rf dist
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-build-isolation --no-deps --wheel-dir dist $(patsubst %pyproject.toml,./%,$(PROJECTS))
	@echo "$$(ls dist | wc -l) wheels are in dist/. Anywhere: pip install --find-links dist \"alcore[standard]\""

# A quarter of the time of the tests is waiting, so there are half as many processes again as processors.
test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(max(2, os.cpu_count() * 3 // 2))') $(PYTEST_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict alcore plugins/*/alcore_*
	$(BIN)/lint-imports

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/loop/moons.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/loop/train.py
	$(BIN)/python benchmarks/distributed.py

faults: $(VENV)/test.stamp
	$(BIN)/python tests/faults/run.py $(FAULTS_ARGS)
	$(BIN)/python tests/faults/signals.py --offsets 1500
	$(BIN)/python tests/distributed/kills.py
	$(BIN)/python tests/faults/jobs.py
	$(BIN)/python tests/faults/jobs.py --scheduler slurm

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11: install a newer one, or name it with make PYTHON=python3.12 $(MAKECMDGOALS)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }

$(BIN)/python: | python
	$(PYTHON) -m venv $(VENV)

$(VENV)/build.stamp: requirements/build.txt | $(BIN)/python
	$(PIP) -r requirements/build.txt
	@touch $@

$(VENV)/standard.stamp: $(PROJECTS) requirements/standard.txt $(VENV)/build.stamp
	@echo "Installing alcore and its standard plugins into $(VENV); PyTorch is large, so the first time takes a while."
	$(PIP) -r requirements/standard.txt
	@touch $@

$(VENV)/test.stamp: $(VENV)/standard.stamp requirements/test.txt
	$(PIP) -r requirements/test.txt
	@touch $@
