# `make demo` and `make test` work on a fresh clone with Python 3.11 or newer, git and make.
# The environment is .venv, made from requirements.lock and made anew when the lock changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
TORCH := 2.13.0
COVERED := trainers/core/*,trainers/samplers/*,trainers/estimators/*

.PHONY: demo test lint format venv browser lock
.DEFAULT_GOAL := demo

# Start the app at port 7860.
demo: venv
	$(BIN)/python app.py

# Everything CI runs after linting.
test: venv browser
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --cov --cov-report=
	$(BIN)/python -m coverage report --include='$(COVERED)' --fail-under=95

# Rules and format, changing nothing.
lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Apply the format and the safe fixes.
format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamp of a finished environment is a copy of the lock it was made from: a clone keeps no file times.
venv:
	@if ! cmp -s $(LOCK) $(VENV)/$(LOCK) || ! $(BIN)/python -c '' 2>/dev/null; then \
	  set -e; \
	  $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3" if sys.version_info < (3, 11) else 0)'; \
	  echo "Making $(VENV) from $(LOCK); this takes a minute or more."; \
	  $(PYTHON) -m venv --clear $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK); \
	  cp $(LOCK) $(VENV)/$(LOCK); \
	fi

# The browser tests need a Chromium.
browser: venv
	@bash .ci/browser $(BIN)/python

# Resolve requirements*.txt anew and pin the whole result, without what only a CUDA build of torch needs.
lock:
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt torch==$(TORCH)
	echo "# Exact versions of everything in requirements.txt and requirements-dev.txt; made by 'make lock'." > $(LOCK).new
	build/lock/bin/python -m pip freeze --all \
	  | sed 's/+[A-Za-z0-9.]*$$//' \
	  | grep -v -i -E '^(pip|triton|nvidia[a-z0-9_-]*|cuda[a-z0-9_-]*)==' >> $(LOCK).new
	mv $(LOCK).new $(LOCK)
	rm -rf build/lock
