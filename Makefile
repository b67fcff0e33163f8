# Everything below works on a fresh machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_QUIET := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo install test check bench format clean

demo: $(VENV)/.core ## the whole road: text -> tokenizer -> model -> samples, within 5 minutes
	$(BIN)/foundling demo

install: $(VENV)/.dev ## all that development needs

test: $(VENV)/.dev ## the whole test suite, 10 minutes at most on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.dev ## style, types and the one-way floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

bench: $(VENV)/.bench ## what there is to measure, and the command of each
	$(BIN)/python -m benchmarks

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache runs

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "foundling needs Python 3.11 or newer, found %d.%d" % sys.version_info[:2]'
	$(PYTHON) -m venv $(VENV)

# torch first and alone, so that no other package's range decides which build comes.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP_QUIET) install -c constraints.txt torch
	touch $@

$(VENV)/.core: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP_QUIET) install -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP_QUIET) install -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.core

$(VENV)/.bench: $(VENV)/.dev
	$(PIP_QUIET) install -c constraints.txt -e '.[bench]'
	touch $@
