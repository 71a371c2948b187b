# `make demo` and `make test` need python3 (3.11 or newer), make and pip; they
# install everything else, at pinned versions, into a virtual environment here.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PINS := requirements/python$(if $(filter 3.11,$(VERSION)),3.11,3.12).txt
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile -q

.PHONY: demo test test-all check lock clean

demo: $(READY)
	$(BIN)/python -m audiojax.main --config configs/demo.py --workdir runs/demo

test: check
	$(PYTEST) -m "not slow"

test-all: check
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(READY): $(PINS) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement $(PINS)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Renews the pinned versions from what pyproject.toml allows.
lock:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip freeze --exclude-editable > $(PINS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache
